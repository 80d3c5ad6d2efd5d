from corelib.runs.job import run_job
from corelib.settings.given_models import GivenModelStage
from corelib.unlearning.given_model import adopt_model

run_job(snakemake, adopt_model, GivenModelStage)  # noqa: F821
