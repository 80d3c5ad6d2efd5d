from corelib.jobs import run_job
from corelib.settings.miniature import AutoencoderStage
from corelib.worlds.autoencoder import train_autoencoder

run_job(snakemake, train_autoencoder, AutoencoderStage)  # noqa: F821
