# Tables: queries over evaluated runs, at stable names.
# In:  the cells of the table's rows
# Out: results/[STUDY/]TABLE.csv, .md, .tex, .cells.csv and .provenance.csv


rule tabulate:
    """Write a table of a study."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.csv",
        "{place}/{product}.md",
        "{place}/{product}.tex",
        "{place}/{product}.cells.csv",
        "{place}/{product}.provenance.csv",
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product=r"table\w+",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/tabulate.py"
