from corelib.data.embeddings import embed_prompts
from corelib.runs.job import run_job
from corelib.settings.data import EmbeddingsStage

run_job(snakemake, embed_prompts, EmbeddingsStage)  # noqa: F821
