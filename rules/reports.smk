# Reports: figures of sampled images, and the report of the gate.
# In:  the samples of the figure's columns; the cells of the original model
# Out: results/[STUDY/]FIGURE.png, results/[STUDY/]gate.md and gate.csv


rule draw:
    """Draw a figure of a study."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.png",
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product=r"figure\w+",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/draw.py"


rule report_gate:
    """Compare the original model's counts with the paper's."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.csv",
        "{place}/{product}.md",
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product="gate",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/report_gate.py"
