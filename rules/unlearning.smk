# Unlearning: one job per method, task and anchor scheme; closed-form edits; models of the user's own; retrained models.
# In:  slice, latents, embeddings, base model; the user's weights; the world's images
# Out: runs/STAGE/RUN/manifest.json, which lists the delta or the retrained pipeline beside it


rule encode_generated:
    """Cache the latent moments of images that the base model has generated from the anchors' prompts."""
    input:
        catalogue.inputs_of("generated"),
    output:
        manifest="runs/generated/{run}/manifest.json",
    log:
        "logs/generated/{run}.log",
    priority: catalogue.priority_of("generated")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("generated")
    resources:
        **catalogue.resources_of("generated"),
    params:
        specification="runs/generated/{run}/specification.json",
    script:
        "../workflow_scripts/encode_generated.py"


rule find_salient_weights:
    """Mark the trained weights that a method with a saliency mask may change."""
    input:
        catalogue.inputs_of("saliency"),
    output:
        manifest="runs/saliency/{run}/manifest.json",
    log:
        "logs/saliency/{run}.log",
    priority: catalogue.priority_of("saliency")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("saliency")
    resources:
        **catalogue.resources_of("saliency"),
    params:
        specification="runs/saliency/{run}/specification.json",
    script:
        "../workflow_scripts/find_salient.py"


rule unlearn:
    """Train the cross-attention on a method's objective."""
    input:
        catalogue.inputs_of("unlearning"),
    output:
        manifest="runs/unlearning/{run}/manifest.json",
    log:
        "logs/unlearning/{run}.log",
    priority: catalogue.priority_of("unlearning")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("unlearning")
    resources:
        **catalogue.resources_of("unlearning"),
    params:
        specification="runs/unlearning/{run}/specification.json",
    script:
        "../workflow_scripts/unlearn.py"


rule adopt_model:
    """Check a model of the user's own, and write it as a delta of the base model."""
    input:
        catalogue.inputs_of("models"),
    output:
        manifest="runs/models/{run}/manifest.json",
    log:
        "logs/models/{run}.log",
    priority: catalogue.priority_of("models")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("models")
    resources:
        **catalogue.resources_of("models"),
    params:
        specification="runs/models/{run}/specification.json",
    script:
        "../workflow_scripts/adopt_model.py"


rule edit_model:
    """Compute the edited keys and values of a closed-form method."""
    input:
        catalogue.inputs_of("edits"),
    output:
        manifest="runs/edits/{run}/manifest.json",
    log:
        "logs/edits/{run}.log",
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("edits")
    resources:
        **catalogue.resources_of("edits"),
    params:
        specification="runs/edits/{run}/specification.json",
    script:
        "../workflow_scripts/edit_model.py"


rule retrain_pipeline:
    """Train the miniature's text encoder and U-Net without a task's forget styles."""
    input:
        catalogue.inputs_of("retrained"),
    output:
        manifest="runs/retrained/{run}/manifest.json",
    log:
        "logs/retrained/{run}.log",
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("retrained")
    resources:
        **catalogue.resources_of("retrained"),
    params:
        specification="runs/retrained/{run}/specification.json",
    script:
        "../workflow_scripts/retrain_pipeline.py"
