# Reports: pictures of what the tables count.
# In:  the samples of the figure's columns
# Out: results/[STUDY/]FIGURE.png


localrules:
    draw,


rule draw:
    """Put a study's figure together."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.png",
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product=r"figure\w+",
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/draw.py"
