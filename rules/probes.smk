# Probes: attempts to bring a forgotten style back, and the report on each.
# In:  base model, latents, embeddings, delta; predictions of the images of each condition
# Out: runs/relearning/RUN/manifest.json, which lists a delta, runs/{inversion,prefixes}/RUN/manifest.json, which list
#      embeddings, and runs/resampled/RUN/manifest.json, which lists images; results/[STUDY/]PROBE.csv, .md, .pdf, .png and
#      .provenance.csv


rule relearn:
    """Fine-tune a model on a few images of its forget styles."""
    input:
        catalogue.inputs_of("relearning"),
    output:
        manifest="runs/relearning/{run}/manifest.json",
    log:
        "logs/relearning/{run}.log",
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("relearning")
    resources:
        **catalogue.resources_of("relearning"),
    params:
        specification="runs/relearning/{run}/specification.json",
    script:
        "../workflow_scripts/relearn.py"


rule invert_concepts:
    """Learn a word for each forget style through a model that has forgotten it."""
    input:
        catalogue.inputs_of("inversion"),
    output:
        manifest="runs/inversion/{run}/manifest.json",
    log:
        "logs/inversion/{run}.log",
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("inversion")
    resources:
        **catalogue.resources_of("inversion"),
    params:
        specification="runs/inversion/{run}/specification.json",
    script:
        "../workflow_scripts/invert.py"


rule find_prefixes:
    """Find words for the prompts of each forget style through a model that has forgotten it."""
    input:
        catalogue.inputs_of("prefixes"),
    output:
        manifest="runs/prefixes/{run}/manifest.json",
    log:
        "logs/prefixes/{run}.log",
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("prefixes")
    resources:
        **catalogue.resources_of("prefixes"),
    params:
        specification="runs/prefixes/{run}/specification.json",
    script:
        "../workflow_scripts/find_prefixes.py"


rule resample:
    """Restore noised images of the forget styles."""
    input:
        catalogue.inputs_of("resampled"),
    output:
        manifest="runs/resampled/{run}/manifest.json",
    log:
        "logs/resampled/{run}.log",
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("resampled")
    resources:
        **catalogue.resources_of("resampled"),
    params:
        specification="runs/resampled/{run}/specification.json",
    script:
        "../workflow_scripts/resample.py"


rule report_probe:
    """Count the images of each condition of a probe in which a style is recognised."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.csv",
        "{place}/{product}.md",
        "{place}/{product}.pdf",
        report(
            "{place}/{product}.png",
            caption="captions/probe.rst",
            category="Probes",
            labels={"study": "{place}", "probe": "{product}"},
        ),
        "{place}/{product}.provenance.csv",
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product=r"probe\w+",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/report_probe.py"
