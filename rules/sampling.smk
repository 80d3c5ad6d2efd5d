# Sampling: images of the original and of every unlearned model, in shards of whole batches.
# In:  base model, delta, embeddings
# Out: runs/samples/RUN/manifest.json, which lists the images beside it with their sha256


rule sample_shard:
    """Sample one shard of a run's batches."""
    input:
        catalogue.inputs_of("samples"),
    output:
        manifest="runs/samples/{run}/shards/{shard}-of-{shards}.json",
    log:
        "logs/samples/{run}/{shard}-of-{shards}.log",
    priority: catalogue.priority_of("samples")
    conda:
        "../envs/core.yaml"
    threads: catalogue.threads_of("samples")
    resources:
        **catalogue.resources_of("samples"),
    params:
        specification="runs/samples/{run}/specification.json",
        folder="runs/samples/{run}",
    script:
        "../workflow_scripts/sample.py"


rule gather_samples:
    """Check all images of a run and list them in one manifest, whatever the shards were."""
    input:
        catalogue.shards_of,
    output:
        manifest="runs/samples/{run}/manifest.json",
    log:
        "logs/samples/{run}/gather.log",
    priority: catalogue.priority_of("samples")
    localrule: True
    conda:
        "../envs/core.yaml"
    params:
        specification="runs/samples/{run}/specification.json",
    script:
        "../workflow_scripts/gather.py"
