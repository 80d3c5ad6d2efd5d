"""Application of a delta to a pipeline in memory."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from corelib.errors import ArtefactError
from corelib.in_memory.pipeline_in_memory import TENSORS, PipelineInMemory
from corelib.models.delta import Delta, check_base, copy_delta, read_delta

log = logging.getLogger(__name__)


def apply_delta(pipeline: Any, delta: Delta | str | Path) -> None:
    """Put an unlearned model's tensors into the U-Net of a pipeline, in place and in the type of the pipeline.

    Deltas of the workflow and of `corelib.library.unlearn` have one format. A delta names its base model: by the sha256
    of the U-Net's folder, or by that of its tensors if it was trained on a pipeline that has no folder. The pipeline
    must be that base model. If a delta names a folder and the pipeline was not loaded from one, only the names and
    shapes of the tensors are compared, and the log says so.

    Args:
        pipeline: a `StableDiffusionPipeline`, or any object with the attributes `unet` and `vae`, `text_encoder`,
            `tokenizer` and `scheduler`.
        delta: a delta, or the path of one.

    Raises `ArtefactError` if the file is damaged, if the delta belongs to another base model, or if it has other
    tensors; the pipeline is then unchanged. Raises `AssetError` if the pipeline cannot be used.
    """
    source = "delta" if isinstance(delta, Delta) else str(delta)
    found = delta if isinstance(delta, Delta) else read_delta(Path(delta))
    model = PipelineInMemory(pipeline)
    if found.base.startswith(TENSORS):
        check_base(found, [model.tensors_identity()], source)
    elif model.unet_folder is None:
        log.warning("%s: the folder of the base model is not known, so only names and shapes are compared", source)
    elif (identity := model.folder_identity(rounded=True)) is None:
        raise ArtefactError(
            f"{source}: pipeline.unet does not have the weights of {model.unet_folder}, from which it was loaded; load "
            "the pipeline again before applying a delta."
        )
    else:
        check_base(found, [identity], source)
    copy_delta(found, pipeline.unet, source)
