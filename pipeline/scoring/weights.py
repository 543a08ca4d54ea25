"""Load weights: safetensors only, in a dtype of our choice, with a LoRA adapter merged in."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers.utils import logging as transformers_logging

from pipeline.errors import ModelError
from pipeline.scoring.checkpoint import Checkpoint, find_adapter
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.translated_configs import TRANSLATED
from pipeline.scoring.weight_files import read_header

_ADAPTER = "adapter_model.safetensors"
_OF_A_LAYER = re.compile(r"(?!vis|audio)(?:\w+\.)??(?!vis|audio)(?:\w+\.)??layers?\.(\d+)\.")
_COMPUTED = ("inv_freq", "position_ids", "_cached", "masked_bias")
"""Ends of the names of what older versions of transformers saved, and now compute."""
_OF_TOKENS = "trainable_tokens"
_MADE_TWICE = re.compile(r"\.(modules_to_save|original_module)(?=\.)")
"""With bias="all", peft writes a head's bias under three names: its own is the first."""
_NOT_RUN = ("layer_replication", "ensure_weight_tying")
"""Options of an adapter that change the network it goes to."""


def load_weights(
    model_class: Any,
    checkpoint: Checkpoint,
    config: ScorerConfig,
    dtype: torch.dtype = torch.float32,
    unused: tuple[str, ...] = (),
    model_config: Any = None,
) -> Any:
    """The checkpoint as `model_class` loads it, in `dtype`, on the CPU.

    model_config: the architecture, where transformers does not know the one in config.json.
    transformers 5 keeps the dtype of the file, and a float16 model crawls on a CPU. Raises ModelError where
    weights are of another shape, or missing and don't start with one of `unused`: transformers would make
    them up, and scores would be noise.
    """
    _ = checkpoint.stored_tensors  # what is wrong with the files is told by file
    if model_config is None and checkpoint.model_type in TRANSLATED:
        model_config = checkpoint.architecture_config
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers' own
    # Layers above the last cutoff are left in the file on purpose; what is missing is refused below.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # transformers' own
    try:
        model, loading = model_class.from_pretrained(
            checkpoint.path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=checkpoint.trust_remote_code,
            ignore_mismatched_sizes=True,  # they are told below, by name
            output_loading_info=True,
            **({"config": model_config} if model_config is not None else {}),
        )
    except Exception as error:  # a library is missing, a config is odd, memory is short
        raise ModelError(f"{checkpoint.name}: can't be loaded: {_in_short(error)}") from error
    for key, stored, needed in sorted(loading["mismatched_keys"]):
        raise ModelError(
            f"{checkpoint.name}: {key} has the shape {tuple(stored)} in the weights; the model of config.json"
            f" needs {tuple(needed)}"
        )
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith(unused))
    if missing:
        raise ModelError(
            f"{checkpoint.name}: the weights lack {', '.join(missing[:3])} ({len(missing)} tensors)"
        )
    _check_all_are_used(model, checkpoint, loading["unexpected_keys"])
    adapter = find_adapter(config)
    return model if adapter is None else _merge_adapter(model, adapter)


def _check_all_are_used(model: Any, checkpoint: Checkpoint, unexpected: Collection[str]) -> None:
    """Raises ModelError for a layer's tensor that the network has no place for: it is another network.

    Not of layers above the last cutoff, which are left out on purpose.
    """
    layers = checkpoint.config.integer("num_hidden_layers")
    if layers is None:
        return
    loaded = getattr(model.config.get_text_config(), "num_hidden_layers", layers)
    for key in sorted(unexpected):
        found = _OF_A_LAYER.match(key)
        if found is None or key.endswith(_COMPUTED) or loaded <= int(found[1]) < layers:
            continue
        raise ModelError(
            f"{checkpoint.name}: the weights have {key}, for which the network of config.json has no place"
            " in this transformers: its scores would not be the checkpoint's"
        )


def check_adapter(adapter: Checkpoint) -> None:
    """Raises ModelError where its files are not those of an adapter. Loads nothing."""
    file = adapter.path / _ADAPTER
    if not file.is_file():
        raise _of_adapter(adapter, f"no {_ADAPTER} in {adapter.path}")
    try:
        read_header(file)
        adapter.read_object("adapter_config.json")
    except ModelError as error:
        raise _of_adapter(adapter, error.message) from error


def _merge_adapter(model: Any, adapter: Checkpoint) -> Any:
    try:
        import peft  # noqa: PLC0415  (an extra, for those who use it)
    except ImportError as error:
        raise ModelError("peft_path needs peft: pip install 'rayrank[peft]'", field="peft_path") from error
    check_adapter(adapter)
    file = adapter.path / _ADAPTER
    try:
        return _merged(peft, model, adapter, file)
    except ModelError:
        raise
    except KeyError as error:
        raise _of_adapter(adapter, f"{file.name} or its config lacks {error}") from error
    except Exception as error:  # peft and what is below it raise whatever they like
        raise _of_adapter(adapter, _in_short(error)) from error


def _merged(peft: Any, model: Any, adapter: Checkpoint, file: Path) -> Any:
    settings = peft.PeftConfig.from_pretrained(str(adapter.path))
    if not isinstance(settings, peft.LoraConfig):
        raise _of_adapter(adapter, f"is {settings.peft_type.value}, LoRA is needed")
    for name in _NOT_RUN:
        if getattr(settings, name, None):
            raise _of_adapter(adapter, f"{name} is not run here")
    saved = load_file(file)
    weights = _of_loaded_layers(saved, model)
    if saved and not weights:
        return model  # all of it is above the last cutoff
    _part_ends(model, adapter, weights)
    if settings.task_type == "CAUSAL_LM":
        settings.task_type = None  # it would ask the model for what generation needs
    try:
        wrapped = peft.get_peft_model(model, settings)
    except ValueError:  # as where none of the layers that it adapts is there
        if any("lora_" in key for key in weights) or not any("lora_" in key for key in saved):
            raise
        return _with_trained_heads(model, adapter, weights)
    loading = peft.set_peft_model_state_dict(wrapped, weights)
    # peft leaves what has no counterpart as it was made up, with no more than a warning.
    others = weights.keys() - loading.unexpected_keys
    unexpected = [key for key in loading.unexpected_keys if _MADE_TWICE.sub("", key) not in others]
    if unexpected:
        raise _of_adapter(adapter, f"{unexpected[0]} fits no weight of the checkpoint")
    missing = [key for key in loading.missing_keys if "lora_" in key]
    if missing:
        raise _of_adapter(adapter, f"{file.name} lacks {missing[0]}")
    return wrapped.merge_and_unload()


def _with_trained_heads(model: Any, adapter: Checkpoint, weights: dict[str, torch.Tensor]) -> Any:
    """Of an adapter whose layers are all above the last cutoff."""
    heads = {key.removeprefix("base_model.model."): tensor for key, tensor in weights.items()}
    unexpected = model.load_state_dict(heads, strict=False).unexpected_keys
    if unexpected:
        raise _of_adapter(adapter, f"{unexpected[0]} fits no weight of the checkpoint")
    return model


def _in_short(error: Exception) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:400]}"


def _of_adapter(adapter: Checkpoint, reason: str) -> ModelError:
    return ModelError(f"peft_path: {adapter.name}: {reason}", field="peft_path")


def _part_ends(model: Any, adapter: Checkpoint, weights: Collection[str]) -> None:
    """Part a head from the embeddings it shares weights with, or what is merged into one changes both.

    Not for single tokens of the embeddings: peft trains, and merges, these in both.
    """
    head, ends = getattr(model, "lm_head", None), ("embed_tokens", "lm_head")
    if not isinstance(head, torch.nn.Linear) or head.weight is not model.get_input_embeddings().weight:
        return
    of_ends = [key for key in weights if any(end in key for end in ends)]
    whole = [key for key in of_ends if _OF_TOKENS not in key]
    if whole and len(whole) < len(of_ends):
        raise _of_adapter(adapter, "adapts embeddings and some of their tokens, which is not run here")
    if whole:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.tie_word_embeddings = False


def _of_loaded_layers(adapter: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Without what is for layers above the last cutoff, which are not there."""
    layers = model.config.num_hidden_layers
    numbers = {key: re.search(r"\.layers\.(\d+)\.", key) for key in adapter}
    return {key: adapter[key] for key, match in numbers.items() if match is None or int(match[1]) < layers}


def cast_backbone(model: Any, dtype: torch.dtype) -> Any:
    """Run the backbone in `dtype` and everything above it in float32: one wide sum decides the score.

    A model without a head is its own backbone.
    """
    if dtype == torch.float32:
        return model
    backbone = getattr(model, model.base_model_prefix, None)
    if backbone is None:
        cast(model, dtype)
        return model
    heads = [module for module in model.children() if module is not backbone]
    # Some backbones bring the first layer of the head along.
    heads += [backbone.pooler] if getattr(backbone, "pooler", None) is not None else []
    cast(backbone, dtype)
    for head in heads:
        head.float().register_forward_pre_hook(_to_float32)
    return model


def cast(module: torch.nn.Module, dtype: torch.dtype) -> None:
    """The parameters alone: computed tables, such as rotary frequencies, stay as exact as they are."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def _to_float32(_module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.float() if isinstance(value, torch.Tensor) else value for value in inputs)
