# Evaluation: classification, FID, counts, and the gate.
# In:  samples, classifiers, real images
# Out: runs/{predictions,reference,fid,cells,gate}/RUN/manifest.json


rule classify_images:
    """Classify every sampled image by style and by object."""
    input:
        catalogue.inputs_of("predictions"),
    output:
        manifest="runs/predictions/{run}/manifest.json",
    log:
        "logs/predictions/{run}.log",
    priority: catalogue.priority_of("predictions")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("predictions")
    resources:
        **catalogue.resources_of("predictions"),
    params:
        specification="runs/predictions/{run}/specification.json",
    script:
        "../workflow_scripts/classify.py"


rule summarize_reference:
    """Compute the features of the real images of the retain cells."""
    input:
        catalogue.inputs_of("reference"),
    output:
        manifest="runs/reference/{run}/manifest.json",
    log:
        "logs/reference/{run}.log",
    priority: catalogue.priority_of("reference")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("reference")
    resources:
        **catalogue.resources_of("reference"),
    params:
        specification="runs/reference/{run}/specification.json",
    script:
        "../workflow_scripts/summarize_reference.py"


rule measure_fid:
    """Measure the distance of the sampled retain images to the real ones."""
    input:
        catalogue.inputs_of("fid"),
    output:
        manifest="runs/fid/{run}/manifest.json",
    log:
        "logs/fid/{run}.log",
    priority: catalogue.priority_of("fid")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("fid")
    resources:
        **catalogue.resources_of("fid"),
    params:
        specification="runs/fid/{run}/specification.json",
    script:
        "../workflow_scripts/measure_fid.py"


rule count_cells:
    """Collect the numbers of a table: k of n for UA, IRA and CRA, and both distances of SFID."""
    input:
        catalogue.inputs_of("cells"),
    output:
        manifest="runs/cells/{run}/manifest.json",
    log:
        "logs/cells/{run}.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification="runs/cells/{run}/specification.json",
    script:
        "../workflow_scripts/count.py"


rule check_gate:
    """Stop before any training if the original model differs from the paper's."""
    input:
        catalogue.inputs_of("gate"),
    output:
        manifest="runs/gate/{run}/manifest.json",
    log:
        "logs/gate/{run}.log",
    priority: catalogue.priority_of("gate")
    retries: 0  # a retry would count the same images
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification="runs/gate/{run}/specification.json",
    script:
        "../workflow_scripts/check_gate.py"


rule measure_distances:
    """Compare a model with one that was trained without the forget styles."""
    input:
        catalogue.inputs_of("distances"),
    output:
        manifest="runs/distances/{run}/manifest.json",
    log:
        "logs/distances/{run}.log",
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("distances")
    resources:
        **catalogue.resources_of("distances"),
    params:
        specification="runs/distances/{run}/specification.json",
    script:
        "../workflow_scripts/measure_distances.py"
