"""Files of weights in a part of a diffusers folder: which of them hold the weights, and reading their tensors."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from corelib.errors import listed
from corelib.files.json_files import JsonRecord, read_json
from corelib.files.paths import unresolved_path_inside
from corelib.files.torch_files import load_pickled
from corelib.models.state_dicts import as_state_dict
from corelib.models.weight_checks import WeightsMismatch


def weight_files(part_stem: str, folder: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The files with the weights of a part and, if the weights are sharded, the mapping from tensors to files.

    Files without a variant take precedence over those of the variant fp16 and, within a variant, safetensors over
    pickles. Raises `WeightsMismatch` if there are no weights, or two sets of equal precedence.

    Args:
        part_stem: start of the names of the part's safetensors files.
        folder: the folder of the part.
    """
    for variant in ("", ".fp16"):
        for stem, ending in ((part_stem, "safetensors"), (_pickle_stem(part_stem), "bin")):
            whole = folder / f"{stem}{variant}.{ending}"
            index = folder / f"{stem}.{ending}.index{variant}.json"
            if whole.exists() and index.exists():
                raise WeightsMismatch(f"both {whole.name} and {index.name} exist, expected only one of them")
            if whole.exists():
                return [whole], None
            if index.exists():
                return _read_index(folder, index)
    expected = f"{part_stem}.safetensors or {_pickle_stem(part_stem)}.bin, as one file or with an index"
    raise WeightsMismatch(f"it has no weights, expected {expected}")


def _pickle_stem(stem: str) -> str:
    """transformers names its pickles differently from its safetensors."""
    return "pytorch_model" if stem == "model" else stem


def _read_index(folder: Path, index: Path) -> tuple[list[Path], dict[str, str]]:
    weight_map = read_json(index, functools.partial(JsonRecord, source=index))["weight_map"]
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightsMismatch(f"{index.name} does not map tensors to files")
    files = [unresolved_path_inside(folder, name) for name in sorted(set(weight_map.values()))]
    if missing := [path.name for path in files if not path.exists()]:
        raise WeightsMismatch(f"{index.name} names files that are missing: {listed(missing)}")
    return files, weight_map


def read_weight_files(part_stem: str, folder: Path) -> dict[str, Tensor]:
    """All tensors of a part under the names in its files, memory-mapped where the file format allows it.

    Raises `WeightsMismatch` as `weight_files` does, and if a shard does not hold the tensors that its index names.
    """
    files, weight_map = weight_files(part_stem, folder)
    weights: dict[str, Tensor] = {}
    for path in files:
        tensors = as_state_dict(read_tensors(path))
        if weight_map is not None:
            _check_shard(path.name, tensors, weight_map)
        weights |= tensors
    return weights


def read_tensors(path: Path) -> Any:
    """The content of a weight file. Raises `UnsafeWeights`, `OSError`, and the exceptions of the reader."""
    return load_file(path) if path.suffix == ".safetensors" else load_pickled(path, mapped=True)


def _check_shard(name: str, tensors: Mapping[str, Tensor], weight_map: Mapping[str, str]) -> None:
    expected = {tensor for tensor, file in weight_map.items() if file == name}
    if missing := sorted(expected - tensors.keys()):
        raise WeightsMismatch(f"{name} lacks {len(missing)} tensors that its index names: {listed(missing)}")
    if unnamed := sorted(tensors.keys() - expected):
        raise WeightsMismatch(f"{name} has {len(unnamed)} tensors that its index does not name: {listed(unnamed)}")
