# Unlearning: one job per method, task and anchor scheme.
# In:  slice, latents, embeddings, base model
# Out: runs/unlearning/RUN/manifest.json, which lists the delta beside it with its sha256


rule encode_generated:
    """Cache the latent moments of images that the base model has generated from the anchors' prompts."""
    input:
        catalogue.inputs_of("generated"),
    output:
        manifest="runs/generated/{run}/manifest.json",
    log:
        "logs/generated/{run}.log",
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
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("unlearning")
    resources:
        **catalogue.resources_of("unlearning"),
    params:
        specification="runs/unlearning/{run}/specification.json",
    script:
        "../workflow_scripts/unlearn.py"
