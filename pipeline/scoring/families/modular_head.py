"""Cross-encoders whose head is a chain of modules: cross-encoder/ettin-reranker-* and their like.

As sentence_transformers 6.2 saves a CrossEncoder of Transformer, Pooling, Dense, LayerNorm, ..., Dense: the
hidden states of a pair are pooled, and the last Dense gives one number, `scores` (base/modules/dense.py,
sentence_transformer/modules/pooling.py, layer_norm.py). Each module lies in a folder that modules.json names.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
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
from pipeline.scoring.module_chain import KINDS, ModuleChain
from pipeline.scoring.pooling import Pooling, poolings_of
from pipeline.scoring.saved_modules import Saved, check_sides
from pipeline.scoring.weights import load_weights

HANDLES = "sentence-transformers' cross-encoders with a Pooling and Dense modules (ettin-reranker-*)"
OPTIONS = PAIR_OPTIONS
ENGINES = None
EMBEDS = False
TRAINED: dict[str, str] = {}
own_truncation = truncation_of

_STATES = "token_embeddings"
"""What the Transformer hands on, by sentence-transformers' name."""


def handles(checkpoint: Checkpoint) -> bool:
    return Saved.of(checkpoint).has_modular_head


class Head(nn.Module):
    """Hidden states to one score: a pooling, and the modules on it, in float32."""

    def __init__(self, poolings: list[Pooling], chain: ModuleChain) -> None:
        super().__init__()
        self._poolings, self.chain = poolings, chain

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
        self.head.chain.save(folder)


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
    head.chain.load(checkpoint)
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
    known = saved.kinds[:2] == ("Transformer", "Pooling") and set(saved.kinds[2:]) <= KINDS
    if not known or saved.paths[0] or saved.kinds[-1] != "Dense":
        raise ModelError(
            f"{saved.path}: names {', '.join(saved.kinds)}; modular_head runs a Transformer in the"
            f" checkpoint's own folder, a Pooling, and {', '.join(sorted(KINDS))} modules, a Dense at the end"
        )
    poolings = poolings_of(checkpoint.read_object(f"{saved.paths[1]}/config.json"))
    return Head(poolings, ModuleChain.of(checkpoint, saved, len(poolings), "scores"))
