from corelib.runs.job import run_job
from corelib.settings.miniature import AutoencoderStage
from corelib.worlds.miniature.autoencoder import train_autoencoder

run_job(snakemake, train_autoencoder, AutoencoderStage)  # noqa: F821
