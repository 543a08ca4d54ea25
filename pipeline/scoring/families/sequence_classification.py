"""Cross-encoders with a classification head of one logit: bge-reranker-base, -large, -v2-m3 and their like.

The published scores were made with FlagEmbedding 1.4.2 (inference/reranker/encoder_only/base.py).
"""

from typing import Any

import torch
import transformers

from pipeline.errors import ModelError
from pipeline.scoring import flash_xlm_roberta
from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.cross_encoder import (
    PAIR_OPTIONS,
    PairEncoder,
    PairModel,
    saved_of,
    truncation_of,
    with_gradients,
)
from pipeline.scoring.engine import Engine
from pipeline.scoring.headed_decoder import check_long_rope
from pipeline.scoring.saved_modules import Saved, check_sides
from pipeline.scoring.translated_configs import LLAMA_BIDIRECTIONAL, TRANSLATED
from pipeline.scoring.weights import load_weights

HANDLES = (
    "*ForSequenceClassification with one logit (bge-reranker-base, -large, -v2-m3, other cross-encoders)"
)
OPTIONS = PAIR_OPTIONS
ENGINES = None
EMBEDS = False
TRAINED: dict[str, str] = {}
own_truncation = truncation_of

_HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")
"""The last layer of most architectures, where a second label is seen without loading."""
_READS_LAST_TOKEN = {"xlnet", "xlm", "flaubert"}
"""By their summary of a sequence, which counts padding as text (SequenceSummary in transformers)."""


def handles(checkpoint: Checkpoint) -> bool:
    is_classifier = checkpoint.architecture.endswith("ForSequenceClassification")
    of_another = checkpoint.model_type == LLAMA_BIDIRECTIONAL or Saved.of(checkpoint).has_modular_head
    return is_classifier and not of_another


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PairEncoder:
    return PairEncoder(checkpoint, config)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    is_flash = flash_xlm_roberta.is_named_so(checkpoint)
    kind = flash_xlm_roberta.network_class() if is_flash else transformers.AutoModelForSequenceClassification
    return load_weights(kind, checkpoint, config)


def load_model(checkpoint: Checkpoint, config: ScorerConfig, engine: Engine) -> PairModel:
    network = load_network(checkpoint, config)
    return PairModel(network, "logits", _first_logit, checkpoint, config, engine)


def _first_logit(logits: torch.Tensor, _mask: torch.Tensor) -> torch.Tensor:
    return logits[:, 0]


def batch_scores(network: Any, checkpoint: Checkpoint, _config: ScorerConfig) -> BatchScores:
    return with_gradients(network, checkpoint)


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    # transformers takes two labels where config.json names none.
    named = checkpoint.config.integer("num_labels")
    labels = len(checkpoint.config.object("id2label")) or (2 if named is None else named)
    if named not in (None, labels):
        raise checkpoint.config.wrong("num_labels", f"is {named}, but id2label has {labels}")
    if labels != 1:
        raise ModelError(
            f"{checkpoint.name}: its head has {labels} labels, a reranker has one logit. It is a classifier"
            " (NLI, sentiment, ...); use one trained to score relevance, such as BAAI/bge-reranker-v2-m3"
        )
    for name in _HEADS:
        stored = checkpoint.stored_tensors.get(name)
        if stored is not None and stored.shape[:1] != (1,):
            raise ModelError(
                f"{checkpoint.name}: {name} has the shape {stored.shape} in the weights, a head of one logit"
                " has (1, ...)"
            )
    _ = checkpoint.architecture_config
    # One that names no class, or TensorFlow's or Flax', is what transformers makes of its model type.
    class_name = (checkpoint.config.texts("architectures") or [""])[0].removeprefix("TF").removeprefix("Flax")
    is_known = checkpoint.model_type in TRANSLATED or not class_name or hasattr(transformers, class_name)
    if not is_known and not checkpoint.trust_remote_code:
        raise checkpoint.config.wrong(
            "architectures",
            f"{checkpoint.architecture} is code of the checkpoint's own, which is not run here;"
            f" transformers would run its own {checkpoint.model_type} instead",
        )
    check_long_rope(checkpoint)
    if flash_xlm_roberta.is_named_so(checkpoint):
        flash_xlm_roberta.check(checkpoint)
    if checkpoint.model_type in _READS_LAST_TOKEN:
        raise ModelError(
            f"{checkpoint.name}: {checkpoint.architecture} reads the last position of a batch, padding"
            " included; it is not run here"
        )
    saved = saved_of(checkpoint)
    if saved.kinds:
        if saved.kinds != ("Transformer",) or saved.paths[0]:
            raise ModelError(
                f"{saved.path}: names {', '.join(saved.kinds)}; the family sequence_classification runs a"
                " Transformer alone"
            )
        saved.check_transformer("sequence-classification", "logits")
    _ = saved.default_prompt
    saved.check_activation(checkpoint)
    check_sides(checkpoint, config, pads=True)
