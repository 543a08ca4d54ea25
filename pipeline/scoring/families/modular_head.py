"""Cross-encoders whose head is a chain of modules: cross-encoder/ettin-reranker-* and their like.

As sentence_transformers 6.2 saves a CrossEncoder of Transformer, Pooling, Dense, LayerNorm, ..., Dense: the
hidden states of a pair are pooled, and the last Dense gives one number, `scores` (base/modules/dense.py,
sentence_transformer/modules/pooling.py, layer_norm.py). Each module lies in a folder that modules.json names.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from pipeline.errors import ModelError
from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.cross_encoder import (
    PAIR_OPTIONS,
    PairEncoder,
    PairModel,
    truncation_of,
    with_gradients,
)
from pipeline.scoring.device import resolve_device
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import check_long_rope
from pipeline.scoring.json_object import JsonObject
from pipeline.scoring.pooling import Pooling, poolings_of
from pipeline.scoring.saved_modules import Saved, check_sides
from pipeline.scoring.weight_files import WEIGHTS, read_header
from pipeline.scoring.weights import load_weights

HANDLES = "sentence-transformers' cross-encoders with a Pooling and Dense modules (ettin-reranker-*)"
OPTIONS = PAIR_OPTIONS
ENGINES = None
EMBEDS = False
TRAINED: dict[str, str] = {}
own_truncation = truncation_of

_STATES, _POOLED, _SCORES = "token_embeddings", "sentence_embedding", "scores"
"""What modules hand on, by sentence-transformers' names."""
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


def handles(checkpoint: Checkpoint) -> bool:
    return Saved.of(checkpoint).has_modular_head


class Head(nn.Module):
    """Hidden states to one score: a pooling, and the modules on it, in float32."""

    def __init__(self, poolings: list[Pooling], places: list[str], modules: list[nn.Sequential]) -> None:
        """places: the modules' folders in a checkpoint."""
        super().__init__()
        self._poolings, self.places = poolings, places
        self.chain = nn.Sequential(*modules)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) states and (batch, length) mask, padded on the right, to (batch, 1)."""
        hidden, mask = hidden.float(), mask[:, :, None].float()
        pooled = torch.cat([pool(hidden, mask) for pool in self._poolings], dim=-1)
        scores: torch.Tensor = self.chain(pooled)
        return scores


class HeadedEncoder(nn.Module):
    """A backbone and its head, called and saved as transformers' own classifiers are."""

    base_model_prefix = "backbone"

    def __init__(self, backbone: Any, head: Head) -> None:
        super().__init__()
        self.backbone, self.head, self.config = backbone, head, backbone.config

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **inputs: Any
    ) -> SequenceClassifierOutput:
        output = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **inputs)
        return SequenceClassifierOutput(logits=self.head(output.last_hidden_state, attention_mask))

    def activation_checkpointing_enable(self, options: dict[str, Any]) -> None:
        """Of the backbone: the head's own are small."""
        self.backbone.activation_checkpointing_enable(options)

    def save_pretrained(self, folder: Path) -> None:
        """All weights, where sentence-transformers looks for them."""
        self.backbone.save_pretrained(folder)
        for place, module in zip(self.head.places, self.head.chain, strict=True):
            (folder / place).mkdir(parents=True, exist_ok=True)
            save_file(module.state_dict(), folder / place / WEIGHTS, metadata={"format": "pt"})


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    _ = checkpoint.architecture_config
    check_long_rope(checkpoint)
    saved = Saved.of(checkpoint)
    if not saved.has_modular_head:
        raise ModelError(
            f"{checkpoint.name}: is no cross-encoder of sentence-transformers with a Pooling and Dense"
            " modules; modular_head runs these"
        )
    if checkpoint.config.flag("is_encoder_decoder"):
        raise ModelError(
            f"{checkpoint.name}: {checkpoint.architecture} has a decoder; modular_head runs encoders"
        )
    saved.check_transformer("feature-extraction", "last_hidden_state")
    settings = saved.transformer
    if settings is not None and settings.text("module_output_name") not in (None, _STATES):
        raise settings.wrong("module_output_name", f"is not run here, {_STATES} is")
    _head_of(checkpoint, saved)
    _ = saved.default_prompt
    saved.check_activation(checkpoint)
    check_sides(checkpoint, config, pads=True)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PairEncoder:
    return PairEncoder(checkpoint, config)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> HeadedEncoder:
    """Tensors are named as in the files of each: those of model.safetensors below `backbone`."""
    backbone = load_weights(transformers.AutoModel, checkpoint, config, unused=("pooler.",))
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None  # no module reads it
    head = _head_of(checkpoint, Saved.of(checkpoint))
    for place, module in zip(head.places, head.chain, strict=True):
        stored = load_file(checkpoint.path / place / WEIGHTS)
        module.load_state_dict({name: tensor.float() for name, tensor in stored.items()}, assign=True)
    return HeadedEncoder(backbone, head.eval())


def load_model(checkpoint: Checkpoint, config: ScorerConfig, engine: Engine) -> PairModel:
    network = load_network(checkpoint, config)
    head = network.head.to(resolve_device(config.device))

    def score_of(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = head(hidden, mask)[:, 0]
        return scores

    return PairModel(network.backbone, "last_hidden_state", score_of, checkpoint, config, engine)


def batch_scores(network: Any, checkpoint: Checkpoint, _config: ScorerConfig) -> BatchScores:
    return with_gradients(network, checkpoint)


def _head_of(checkpoint: Checkpoint, saved: Saved) -> Head:
    """What the modules' files describe, without weights: on the meta device.

    Raises ModelError for what is not run here, and where the weights are not those of the modules.
    """
    known = saved.kinds[:2] == ("Transformer", "Pooling") and set(saved.kinds[2:]) <= {"Dense", "LayerNorm"}
    if not known or saved.paths[0] or saved.kinds[-1] != "Dense":
        raise ModelError(
            f"{saved.path}: names {', '.join(saved.kinds)}; modular_head runs a Transformer in the"
            " checkpoint's own folder, a Pooling, and Dense and LayerNorm modules, a Dense at the end"
        )
    poolings = poolings_of(checkpoint.read_object(f"{saved.paths[1]}/config.json"))
    states = getattr(checkpoint.architecture_config, "hidden_size", None)
    if states is None:
        raise checkpoint.config.wrong(
            "hidden_size", f"is missing; modular_head runs no {checkpoint.model_type}"
        )
    width = states * len(poolings)
    modules, places = list[nn.Sequential](), list(saved.paths[2:])
    for place, kind in zip(places, saved.kinds[2:], strict=True):
        settings = checkpoint.read_object(f"{place}/config.json")
        is_last = len(modules) == len(places) - 1
        module = _norm(settings, width) if kind == "LayerNorm" else _dense(settings, width, is_last=is_last)
        _check_stored(checkpoint.path / place / WEIGHTS, module)
        modules.append(module)
        width = settings.required_integer("out_features") if kind == "Dense" else width
    return Head(poolings, places, modules)


def _dense(settings: JsonObject, width: int, *, is_last: bool) -> nn.Sequential:
    """width: of what comes in."""
    _check_fields(settings, _DENSE)
    if settings.flag("use_residual"):
        raise settings.wrong("use_residual", "is not run here")
    wired = settings.text("module_input_name") or _POOLED
    if wired != _POOLED:
        raise settings.wrong("module_input_name", f"{wired} is not run here, {_POOLED} is")
    gives, needed = settings.text("module_output_name") or wired, _SCORES if is_last else _POOLED
    if gives != needed:
        raise settings.wrong("module_output_name", f"{gives} is not run here, {needed} is")
    _check_width(settings, "in_features", width)
    out = settings.required_integer("out_features")
    if is_last and out != 1:
        raise settings.wrong("out_features", f"is {out}, a reranker has one score")
    # sentence-transformers takes Tanh where the file names none.
    activation = settings.text("activation_function") or f"{nn.Tanh.__module__}.{nn.Tanh.__name__}"
    if activation not in _ACTIVATIONS:
        raise settings.wrong(
            "activation_function", f"{activation} is not run here, {', '.join(_ACTIVATIONS)} are"
        )
    linear = nn.Linear(width, out, bias=settings.flag("bias") is not False, device="meta")
    return nn.Sequential(OrderedDict(linear=linear, activation=_ACTIVATIONS[activation]()))


def _norm(settings: JsonObject, width: int) -> nn.Sequential:
    _check_fields(settings, {"dimension"})
    _check_width(settings, "dimension", width)
    return nn.Sequential(OrderedDict(norm=nn.LayerNorm(width, device="meta")))


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
