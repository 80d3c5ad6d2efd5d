# Summaries of a study: the gate, sequences of tasks, the verdicts on the paper's claims, and a page with everything.
# In:  the cells of the original model; the predictions of the models of each step of a sequence; the cells, training
#      runs, samples, distances, predictions and searches that are built
# Out: results/[STUDY/]gate.md and gate.csv; SEQUENCE.csv, .md, .pdf, .png and .provenance.csv; claims.md, .csv and
#      .checks.csv; report.html, .costs.md and .costs.csv


rule report_gate:
    """Compare the original model's counts with the paper's."""
    input:
        catalogue.inputs_of_product,
    output:
        report(
            "{place}/{product}.csv",
            caption="captions/gate.rst",
            category="Reports",
            labels={"study": "{place}", "report": "gate"},
        ),
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


rule report_sequence:
    """Count what the models of a sequence have forgotten and retained after each step."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.csv",
        "{place}/{product}.md",
        "{place}/{product}.pdf",
        report(
            "{place}/{product}.png",
            caption="captions/sequence.rst",
            category="Sequences",
            labels={"study": "{place}", "sequence": "{product}"},
        ),
        "{place}/{product}.provenance.csv",
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product=r"sequence\w+",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/report_sequence.py"


rule evaluate_claims:
    """Evaluate the paper's claims on the numbers that are built, and on the paper's own."""
    input:
        catalogue.inputs_of_product,
    output:
        "{place}/{product}.md",
        report(
            "{place}/{product}.csv",
            caption="captions/claims.rst",
            category="Reports",
            labels={"study": "{place}", "report": "claims"},
        ),
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


rule write_report:
    """Write everything that is built onto one page, and what it cost."""
    input:
        catalogue.inputs_of_product,
    output:
        report(
            "{place}/{product}.html",
            caption="captions/page.rst",
            category="Reports",
            labels={"study": "{place}", "report": "page"},
        ),
        "{place}/{product}.costs.md",
        report(
            "{place}/{product}.costs.csv",
            caption="captions/costs.rst",
            category="Reports",
            labels={"study": "{place}", "report": "costs"},
        ),
        manifest="{place}/{product}.json",
    log:
        "logs/{place}/{product}.log",
    wildcard_constraints:
        product="report",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification=catalogue.specification_of_product,
    script:
        "../workflow_scripts/write_report.py"
