# Every table and figure of the paper, and of every study, as a target:
#
#   snakemake -c2 results/tiny/table1.csv           the tests' study
#   snakemake --profile slurm results/table1.csv    the paper's
#
# A study is a file in config/studies/; its products lie in results/STUDY/, the paper's own in results/.
# All other artefacts lie in runs/STAGE/SLUG-DIGEST/, where the digest is taken over everything that decides them.

# Another workflow may use this one as a module: docs/module.md.

import sys
from pathlib import Path

repository = Path(workflow.current_basedir)  # of this file, and not of the workflow that uses it
sys.path.insert(0, str(repository))

from corelib.workflow.unknown_target import ABSOLUTE, NO_PRODUCT
from corelib.workflow.catalogue import Catalogue

catalogue = Catalogue(repository, ancient, workflow, config)


wildcard_constraints:
    place=r"results(/[A-Za-z0-9_-]+)?",
    product=r"(table|figure)\w+|gate",
    run=r"[a-z0-9_-]+-[0-9a-f]{12}",
    shard=r"\d{4}",
    shards=r"\d{4}",


onstart:
    catalogue.begin()


onsuccess:
    catalogue.end()


if not catalogue.is_module:  # which other targets there are, another workflow says itself

    rule all:
        """Every table and figure of the paper."""
        input:
            catalogue.files_of_paper,

    rule refuse:
        """Say what can be asked for, of a target in results/ that no rule makes."""
        input:
            catalogue.refuse,
        output:
            "results{rest}",
        wildcard_constraints:
            rest=NO_PRODUCT,

    rule refuse_absolute:
        """Say how a target is called, of one by its absolute path."""
        input:
            catalogue.refuse_absolute,
        output:
            "{target}",
        wildcard_constraints:
            target=ABSOLUTE,


include: "rules/world.smk"
include: "rules/slices.smk"
include: "rules/unlearning.smk"
include: "rules/sampling.smk"
include: "rules/evaluation.smk"
include: "rules/tables.smk"
include: "rules/reports.smk"
