# Slices: the forget and retain sets, with the latents and embeddings that training reads.
# In:  images, base model
# Out: runs/{slices,latents,embeddings}/RUN/manifest.json


rule slice_images:
    """List the forget and retain sets of a task and check all their images."""
    input:
        catalogue.inputs_of("slices"),
    output:
        manifest="runs/slices/{run}/manifest.json",
    log:
        "logs/slices/{run}.log",
    priority: catalogue.priority_of("slices")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("slices")
    resources:
        **catalogue.resources_of("slices"),
    params:
        specification="runs/slices/{run}/specification.json",
    script:
        "../workflow_scripts/slice.py"


rule encode_images:
    """Cache the latent moments of the training images."""
    input:
        catalogue.inputs_of("latents"),
    output:
        manifest="runs/latents/{run}/manifest.json",
    log:
        "logs/latents/{run}.log",
    priority: catalogue.priority_of("latents")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("latents")
    resources:
        **catalogue.resources_of("latents"),
    params:
        specification="runs/latents/{run}/specification.json",
    script:
        "../workflow_scripts/encode.py"


rule embed_prompts:
    """Cache the text embeddings of all prompts."""
    input:
        catalogue.inputs_of("embeddings"),
    output:
        manifest="runs/embeddings/{run}/manifest.json",
    log:
        "logs/embeddings/{run}.log",
    priority: catalogue.priority_of("embeddings")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("embeddings")
    resources:
        **catalogue.resources_of("embeddings"),
    params:
        specification="runs/embeddings/{run}/specification.json",
    script:
        "../workflow_scripts/embed.py"
