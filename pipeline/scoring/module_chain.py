"""What sentence-transformers puts behind a pooling: Dense, Dropout, LayerNorm and Normalize modules in a row.

As sentence_transformers 6.2 saves and computes them (base/modules/dense.py, sentence_transformer/modules/
dropout.py, layer_norm.py, normalize.py). Each lies in a folder that modules.json names.
"""

from pathlib import Path
from typing import Literal, Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.errors import ModelError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.json_object import JsonObject
from pipeline.scoring.saved_modules import Saved
from pipeline.scoring.weight_files import WEIGHTS, read_header

KINDS = {"Dense", "Dropout", "LayerNorm", "Normalize"}
_DENSE = {
    "in_features",
    "out_features",
    "bias",
    "activation_function",
    "module_input_name",
    "module_output_name",
    "use_residual",
}
_ACTIVATIONS = {
    f"{kind.__module__}.{kind.__name__}": kind
    for kind in (nn.Identity, nn.GELU, nn.ReLU, nn.SiLU, nn.Sigmoid, nn.Tanh)
}
"""By the names under which they are saved."""
_EMBEDDING = "sentence_embedding"
Given = Literal["sentence_embedding", "scores"]
"""What the last module hands on, by sentence-transformers' names."""


class ModuleChain(nn.Sequential):
    """(batch, width) of what was pooled, to (batch, `width`), in float32."""

    def __init__(self, places: list[str], modules: list[nn.Module], width: int) -> None:
        """places: the modules' folders in a checkpoint."""
        super().__init__(*modules)
        self.places, self.width = places, width

    @classmethod
    def of(cls, checkpoint: Checkpoint, saved: Saved, poolings: int, gives: Given) -> Self:
        """What the files describe from the third module on, without weights: on the meta device.

        poolings: how many are concatenated. Raises ModelError for what is not run here, and where the weights
        are not those of the modules.
        """
        states = getattr(checkpoint.architecture_config, "hidden_size", None)
        if states is None:
            raise checkpoint.config.wrong(
                "hidden_size", f"is missing; {checkpoint.model_type} is not run with a pooling"
            )
        width = states * poolings
        module: nn.Module
        modules, places, kinds = list[nn.Module](), list(saved.paths[2:]), saved.kinds[2:]
        for number, (place, kind) in enumerate(zip(places, kinds, strict=True)):
            if kind == "Normalize":
                modules.append(_Normalize())
                continue
            settings = checkpoint.read_object(f"{place}/config.json")
            if kind == "Dropout":
                modules.append(_dropout(settings))
                continue
            if kind == "Dense":
                is_last = number == len(kinds) - 1
                dense = _Dense(settings, width, gives if is_last else "sentence_embedding")
                module, width = dense, dense.linear.out_features
            else:
                module = _Norm(settings, width)
            _check_stored(checkpoint.path / place / WEIGHTS, module)
            modules.append(module)
        return cls(places, modules, width)

    def load(self, checkpoint: Checkpoint) -> Self:
        """With the checkpoint's weights, on the CPU."""
        for place, module in zip(self.places, self, strict=True):
            if module.state_dict():
                stored = load_file(checkpoint.path / place / WEIGHTS)
                module.load_state_dict({name: part.float() for name, part in stored.items()}, assign=True)
        return self

    def save(self, folder: Path) -> None:
        """Where sentence-transformers looks for the weights."""
        for place, module in zip(self.places, self, strict=True):
            if module.state_dict():
                (folder / place).mkdir(parents=True, exist_ok=True)
                save_file(module.state_dict(), folder / place / WEIGHTS, metadata={"format": "pt"})


class _Dense(nn.Module):
    def __init__(self, settings: JsonObject, width: int, gives: Given) -> None:
        """width: of what comes in."""
        super().__init__()
        _check_fields(settings, _DENSE)
        wired = settings.text("module_input_name") or _EMBEDDING
        if wired != _EMBEDDING:
            raise settings.wrong("module_input_name", f"{wired} is not run here, {_EMBEDDING} is")
        given = settings.text("module_output_name") or wired
        if given != gives:
            raise settings.wrong("module_output_name", f"{given} is not run here, {gives} is")
        _check_width(settings, "in_features", width)
        out = settings.required_integer("out_features")
        if gives == "scores" and out != 1:
            raise settings.wrong("out_features", f"is {out}, a reranker has one score")
        # sentence-transformers takes Tanh where the file names none.
        activation = settings.text("activation_function") or f"{nn.Tanh.__module__}.{nn.Tanh.__name__}"
        if activation not in _ACTIVATIONS:
            raise settings.wrong(
                "activation_function", f"{activation} is not run here, {', '.join(_ACTIVATIONS)} are"
            )
        self.linear = nn.Linear(width, out, bias=settings.flag("bias") is not False, device="meta")
        self.activation = _ACTIVATIONS[activation]()
        self._adds_input = settings.flag("use_residual") is True
        if self._adds_input and out != width:
            self.residual = nn.Linear(width, out, bias=False, device="meta")

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.activation(self.linear(pooled))
        if not self._adds_input:
            return result
        return result + (self.residual(pooled) if hasattr(self, "residual") else pooled)


class _Norm(nn.Module):
    def __init__(self, settings: JsonObject, width: int) -> None:
        super().__init__()
        _check_fields(settings, {"dimension"})
        _check_width(settings, "dimension", width)
        self.norm = nn.LayerNorm(width, device="meta")

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(pooled)
        return result


def _dropout(settings: JsonObject) -> nn.Module:
    """Of training alone."""
    _check_fields(settings, {"dropout"})
    share = settings.required_number("dropout")
    if not 0 <= share < 1:
        raise settings.wrong("dropout", f"is {share}, a share from 0 on and below 1 is needed")
    return nn.Dropout(share)


class _Normalize(nn.Module):
    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(pooled, dim=-1)


def _check_fields(settings: JsonObject, known: set[str]) -> None:
    unknown = sorted(settings.fields.keys() - known)
    if unknown:
        raise settings.wrong(unknown[0], "is not run here")


def _check_width(settings: JsonObject, name: str, width: int) -> None:
    told = settings.required_integer(name)
    if told != width:
        raise settings.wrong(name, f"is {told}, and {width} numbers come from the module before")


def _check_stored(file: Path, module: nn.Module) -> None:
    if not file.is_file():
        raise ModelError(
            f"{file}: is not there; pickled weights are not read, save the module as safetensors"
        )
    needed = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    stored = {name: tensor.shape for name, tensor in read_header(file).items()}
    if stored != needed:
        raise ModelError(f"{file}: has {stored}, the module of config.json needs {needed}")
