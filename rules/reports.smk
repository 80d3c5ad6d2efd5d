# Reports: tables, figures, the report of the gate and the verdicts on the paper's claims, at stable names.
# In:  the cells of a table's rows; the samples of a figure's columns; the cells of the original model; all built cells
# Out: results/[STUDY/]TABLE.csv, .md, .tex, .cells.csv, .pairs.csv, .styles.csv, .confusion.csv and .provenance.csv;
#      FIGURE.png; gate.md and gate.csv; claims.md, .csv and .checks.csv


rule tabulate:
    """Write a table of a study."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.csv",
        "{place}/{product}.md",
        "{place}/{product}.tex",
        "{place}/{product}.cells.csv",
        "{place}/{product}.pairs.csv",
        "{place}/{product}.styles.csv",
        "{place}/{product}.confusion.csv",
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


rule evaluate_claims:
    """Evaluate the paper's claims on the numbers that are built, and on the paper's own."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.md",
        "{place}/{product}.csv",
        "{place}/{product}.checks.csv",
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product="claims",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/evaluate_claims.py"
