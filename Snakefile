# Every table and figure of the paper, and of every study, is a target:
#
#   snakemake -c2 results/tiny/table1.csv           the tests' study
#   snakemake --profile slurm results/table1.csv    the paper's
#
# A study is a file in config/studies/. Its products are in results/STUDY/; those of the paper are in results/.
# All other artefacts are in runs/STAGE/SLUG-DIGEST/; the digest is taken over everything on which they depend.
# Another workflow may use this one as a module (docs/module.md).

import sys
from pathlib import Path
from snakemake.utils import min_version

min_version("9.27.1")  # the pinned version; older ones behave differently
if not hasattr(workflow.current_basedir, "__fspath__"):
    raise WorkflowError("for a hosted repository, use its file workflow/Snakefile")

# The folder of this file, not of a workflow that uses it as a module.
repository = Path(workflow.current_basedir)
sys.path.insert(0, str(repository))

from corelib.study.targets import PRODUCT_NAMES
from corelib.workflow.unknown_target import OUTSIDE_PATTERN, UNKNOWN_PRODUCT_PATTERN
from corelib.workflow.catalogue import Catalogue

catalogue = Catalogue(repository, ancient, workflow, config)


wildcard_constraints:
    place=r"results(/[A-Za-z0-9_-]+)?",
    product=PRODUCT_NAMES,
    run=r"[a-z0-9_-]+-[0-9a-f]{12}",
    shard=r"\d{4}",
    shards=r"\d{4}",


onstart:
    catalogue.begin()


onsuccess:
    catalogue.end()


# A workflow that uses this one as a module defines its own default target and its own errors.
if not catalogue.is_module:

    rule all:
        """Every table and figure of the paper."""
        input:
            catalogue.files_of_paper,

    rule refuse:
        """List the possible targets, for a target in results/ that no rule makes."""
        input:
            catalogue.refuse,
        output:
            "results{rest}",
        wildcard_constraints:
            rest=UNKNOWN_PRODUCT_PATTERN,

    rule refuse_outside:
        """List the possible targets, for a target that is a study's name, or in no folder of results."""
        input:
            catalogue.refuse_outside,
        output:
            "{target}",
        wildcard_constraints:
            target=OUTSIDE_PATTERN,


include: "rules/worlds.smk"
include: "rules/data.smk"
include: "rules/unlearning.smk"
include: "rules/sampling.smk"
include: "rules/evaluation.smk"
include: "rules/probes.smk"
include: "rules/reports.smk"
include: "rules/summaries.smk"
