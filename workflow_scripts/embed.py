from corelib.embeddings import embed_prompts
from corelib.jobs import run_job
from corelib.settings.slicing import EmbeddingsStage

run_job(snakemake, embed_prompts, EmbeddingsStage)  # noqa: F821
