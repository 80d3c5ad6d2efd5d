# Reports: tables, their charts and distances, and figures, at stable names.
# In:  the cells of a table's rows, and their training runs; distances to retrained models; the samples of a figure
# Out: results/[STUDY/]TABLE.csv, .md, .tex, .cells.csv, .pairs.csv, .styles.csv, .confusion.csv and .provenance.csv;
#      CHARTS.{tradeoff,values,styles,confusion,losses}.{pdf,png}; DISTANCES.csv, .md; FIGURE.png


rule tabulate:
    """Write a table of a study."""
    input:
        catalogue.inputs_of_product,
    output:
        report(
            "{place}/{product}.csv",
            caption="captions/table.rst",
            category="Tables",
            labels={"study": "{place}", "table": "{product}", "content": "numbers"},
        ),
        "{place}/{product}.md",
        "{place}/{product}.tex",
        "{place}/{product}.cells.csv",
        report(
            "{place}/{product}.pairs.csv",
            caption="captions/pairs.rst",
            category="Tables",
            labels={"study": "{place}", "table": "{product}", "content": "differences"},
        ),
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


rule draw_charts:
    """Draw the charts of a table: trade-off, values, styles, confusion and losses."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.tradeoff.pdf",
        report(
            "{place}/{product}.tradeoff.png",
            caption="captions/tradeoff.rst",
            category="Charts",
            labels={"study": "{place}", "charts": "{product}", "content": "tradeoff"},
        ),
        "{place}/{product}.values.pdf",
        report(
            "{place}/{product}.values.png",
            caption="captions/values.rst",
            category="Charts",
            labels={"study": "{place}", "charts": "{product}", "content": "values"},
        ),
        "{place}/{product}.styles.pdf",
        report(
            "{place}/{product}.styles.png",
            caption="captions/styles.rst",
            category="Charts",
            labels={"study": "{place}", "charts": "{product}", "content": "styles"},
        ),
        "{place}/{product}.confusion.pdf",
        report(
            "{place}/{product}.confusion.png",
            caption="captions/confusion.rst",
            category="Charts",
            labels={"study": "{place}", "charts": "{product}", "content": "confusion"},
        ),
        "{place}/{product}.losses.pdf",
        report(
            "{place}/{product}.losses.png",
            caption="captions/losses.rst",
            category="Charts",
            labels={"study": "{place}", "charts": "{product}", "content": "losses"},
        ),
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product=r"charts\w+",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/draw_charts.py"


rule draw:
    """Draw a figure of a study."""
    input:
        catalogue.inputs_of_product,
    output:
        report(
            "{place}/{product}.png",
            caption="captions/figure.rst",
            category="Figures",
            labels={"study": "{place}", "figure": "{product}"},
        ),
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


rule compare:
    """Write the distances of a table's rows to its retrained models."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.csv",
        "{place}/{product}.md",
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product=r"distances\w+",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/compare.py"
