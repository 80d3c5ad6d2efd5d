# The world: images, base model and classifiers. No other rules depend on which world it is.
# In:  a study's `world` (config/), or the user's assets
# Out: runs/{assets,conversion,images,pretrained,autoencoder,pipeline,classifier}/RUN/manifest.json


rule adopt_assets:
    """Check that the paper's assets exist and are undamaged, and record their sha256."""
    input:
        catalogue.inputs_of("assets"),
    output:
        manifest="runs/assets/{run}/manifest.json",
    log:
        "logs/assets/{run}.log",
    priority: catalogue.priority_of("assets")
    retries: 0  # a retry cannot provide a missing file
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification="runs/assets/{run}/specification.json",
    script:
        "../workflow_scripts/adopt_assets.py"


rule convert_compvis:
    """Take the base model's weights from a CompVis checkpoint."""
    input:
        catalogue.inputs_of("conversion"),
    output:
        manifest="runs/conversion/{run}/manifest.json",
    log:
        "logs/conversion/{run}.log",
    priority: catalogue.priority_of("conversion")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("conversion")
    resources:
        **catalogue.resources_of("conversion"),
    params:
        specification="runs/conversion/{run}/specification.json",
    script:
        "../workflow_scripts/convert_compvis.py"


rule render_images:
    """Render the miniature's images."""
    input:
        catalogue.inputs_of("images"),
    output:
        manifest="runs/images/{run}/manifest.json",
    log:
        "logs/images/{run}.log",
    priority: catalogue.priority_of("images")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("images")
    resources:
        **catalogue.resources_of("images"),
    params:
        specification="runs/images/{run}/specification.json",
    script:
        "../workflow_scripts/render.py"


rule adopt_pretrained:
    """Adopt the trained world that the repository ships."""
    input:
        catalogue.inputs_of("pretrained"),
    output:
        manifest="runs/pretrained/{run}/manifest.json",
    log:
        "logs/pretrained/{run}.log",
    priority: catalogue.priority_of("pretrained")
    retries: 0  # a retry cannot repair a damaged file
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification="runs/pretrained/{run}/specification.json",
    script:
        "../workflow_scripts/adopt_pretrained.py"


rule train_autoencoder:
    """Train the miniature's autoencoder."""
    input:
        catalogue.inputs_of("autoencoder"),
    output:
        manifest="runs/autoencoder/{run}/manifest.json",
    log:
        "logs/autoencoder/{run}.log",
    priority: catalogue.priority_of("autoencoder")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("autoencoder")
    resources:
        **catalogue.resources_of("autoencoder"),
    params:
        specification="runs/autoencoder/{run}/specification.json",
    script:
        "../workflow_scripts/train_autoencoder.py"


rule train_pipeline:
    """Train the miniature's text encoder and U-Net."""
    input:
        catalogue.inputs_of("pipeline"),
    output:
        manifest="runs/pipeline/{run}/manifest.json",
    log:
        "logs/pipeline/{run}.log",
    priority: catalogue.priority_of("pipeline")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("pipeline")
    resources:
        **catalogue.resources_of("pipeline"),
    params:
        specification="runs/pipeline/{run}/specification.json",
    script:
        "../workflow_scripts/train_pipeline.py"


rule train_classifier:
    """Train the miniature's classifier of styles or that of objects."""
    input:
        catalogue.inputs_of("classifier"),
    output:
        manifest="runs/classifier/{run}/manifest.json",
    log:
        "logs/classifier/{run}.log",
    priority: catalogue.priority_of("classifier")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("classifier")
    resources:
        **catalogue.resources_of("classifier"),
    params:
        specification="runs/classifier/{run}/specification.json",
    script:
        "../workflow_scripts/train_classifier.py"
