"""Which files hold a checkpoint's weights, and which tensors their headers list. Loads none of them.

What is listed here is what transformers loads: model.safetensors, else the shards that
model.safetensors.index.json names. The format: https://huggingface.co/docs/safetensors.
"""

import json
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import ModelError
from pipeline.scoring.json_object import JsonObject, read_bytes

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_MAX_HEADER_BYTES = 100_000_000
_QUANTIZED = ("I8", "F8", "F4", "F6")


class StoredTensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]


def stored_tensors(directory: Path) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint, by name. Raises ModelError where they are not all there as safetensors."""
    if (directory / WEIGHTS).is_file():
        tensors = read_header(directory / WEIGHTS)
    elif (directory / INDEX).is_file():
        tensors = _sharded(directory)
    else:
        raise _no_weights(directory)
    quantized = next((name for name, tensor in tensors.items() if tensor.dtype.startswith(_QUANTIZED)), None)
    if quantized is not None:
        raise ModelError(
            f"{directory}: {quantized} is quantized ({tensors[quantized].dtype}); quantized checkpoints are"
            " not run here, take the original one"
        )
    return tensors


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file. Raises ModelError for what is no safetensors file, or is cut off."""
    length = int.from_bytes(read_bytes(file, 64)[:8], "little")
    size = file.stat().st_size
    if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
        raise ModelError(f"{file}: no safetensors file, or cut off: its header does not fit in it")
    try:
        header = json.loads(read_bytes(file, 8 + length)[8:])
        header.pop("__metadata__", None)
        tensors = {
            name: StoredTensor(tensor["dtype"], tuple(tensor["shape"])) for name, tensor in header.items()
        }
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise ModelError(f"{file}: no safetensors file: its header can't be read") from error
    if 8 + length + end != size:
        raise ModelError(f"{file}: has {size} bytes where its header tells of {8 + length + end}; cut off?")
    return tensors


def _sharded(directory: Path) -> dict[str, StoredTensor]:
    index = JsonObject.read(directory / INDEX)
    if "metadata" not in index.fields:
        raise index.wrong("metadata", "is missing")
    index.object("metadata")
    places = index.object("weight_map")
    if not places:
        raise index.wrong("weight_map", "names no tensors")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted({str(place) for place in places.values()}):
        if not shard.endswith(".safetensors"):
            raise index.wrong("weight_map", f"names {shard}; weights are loaded from *.safetensors alone")
        if Path(shard).name != shard:
            raise index.wrong("weight_map", f"names {shard}, which is no file beside it")
        tensors |= read_header(directory / shard)
    lost = next((name for name in places if name not in tensors), None)
    if lost is not None:
        raise index.wrong("weight_map", f"names {lost}, which {places[lost]} has not")
    return tensors


def _no_weights(directory: Path) -> ModelError:
    others = sorted(
        str(file.relative_to(directory))
        for pattern in (
            "*.safetensors",
            "*.bin",
            "*.gguf",
            "*.onnx",
            "*.h5",
            "*.pt",
            "*.pth",
            "*/*.safetensors",
        )
        for file in directory.glob(pattern)
    )
    seen = f"; there is {', '.join(others[:3])}" if others else ""
    return ModelError(
        f"{directory}: no *.safetensors in {directory} that transformers loads, {WEIGHTS} or {INDEX}{seen}."
        " Pickled weights (pytorch_model.bin) can run code when they load; convert them once with"
        " save_pretrained(...)"
    )
