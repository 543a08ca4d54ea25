"""NVIDIA's llama-nemotron-rerank-1b-v2 and what NeMo trains like it: a Llama in which each token attends to
all, the mean of its states, and one row that makes a score of it.

A score is that of the code beside the checkpoint (llama_bidirectional_model.py; NVIDIA-NeMo/Automodel has it
in nemo_automodel/components/models/llama_bidirectional/model.py) for a pair put as the model card puts it:
the whole text is tokenized at once, and one that is too long loses its end.
"""

from functools import cache
from typing import Any

import torch
import transformers
from transformers.modeling_outputs import SequenceClassifierOutput

from pipeline.errors import ModelError
from pipeline.scoring.batch_loop import BatchScores
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.cross_encoder import PairModel, with_gradients
from pipeline.scoring.device import resolve_device
from pipeline.scoring.engine import Engine
from pipeline.scoring.frame_encoder import FrameEncoder, PairFrame
from pipeline.scoring.headed_decoder import check_long_rope
from pipeline.scoring.pooling import POOLINGS, Pooling
from pipeline.scoring.saved_modules import Saved, check_sides
from pipeline.scoring.translated_configs import LLAMA_BIDIRECTIONAL
from pipeline.scoring.truncation import refuse_longest_first
from pipeline.scoring.weights import load_weights

HANDLES = "LlamaBidirectionalForSequenceClassification (llama-nemotron-rerank-1b-v2)"
OPTIONS = frozenset({"truncation", "normalize"})
ENGINES = frozenset({"torch"})
EMBEDS = False
TRAINED: dict[str, str] = {}

_FRAME = PairFrame("question:", " \n \n passage:", "", is_query_first=True, strips=False)
_MAX_LENGTH = 512
"""Of the model card's examples, and of the training."""
_POOLINGS = {"avg": "mean", "cls": "cls", "last": "lasttoken"}
"""By its names, those of sentence-transformers."""


def handles(checkpoint: Checkpoint) -> bool:
    is_classifier = checkpoint.architecture.endswith("ForSequenceClassification")
    return is_classifier and checkpoint.model_type == LLAMA_BIDIRECTIONAL


@cache
def _network_class() -> Any:
    # transformers loads it when it is first asked for, so a type checker knows nothing of it.
    kind: Any = transformers.LlamaForSequenceClassification

    class LlamaBidirectionalForSequenceClassification(kind):  # type: ignore[misc]
        """With the head of the published code. Its name is what a trained checkpoint's config.json says."""

        pool: Pooling
        temperature: float

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **inputs: Any
        ) -> SequenceClassifierOutput:
            """input_ids, attention_mask: (batch, length), padded on the right."""
            output = self.model(input_ids=input_ids, attention_mask=attention_mask, **inputs)
            return SequenceClassifierOutput(logits=self.logits_of(output.last_hidden_state, attention_mask))

        def logits_of(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            """(batch, length, width) states to (batch, 1), in float32."""
            scores: torch.Tensor = self.score(self.pool(hidden.float(), mask[:, :, None].float()))
            return scores / self.temperature

    return LlamaBidirectionalForSequenceClassification


def check(checkpoint: Checkpoint, config: ScorerConfig) -> None:
    refuse_longest_first(config, "the text of query and passage is cut at its end")
    if checkpoint.model_type != LLAMA_BIDIRECTIONAL:
        raise checkpoint.config.wrong(
            "model_type",
            f"{checkpoint.model_type} is not run by llama_bidirectional, {LLAMA_BIDIRECTIONAL} is",
        )
    settings = checkpoint.architecture_config
    if settings.num_labels != 1:
        raise ModelError(
            f"{checkpoint.name}: its head has {settings.num_labels} labels, a reranker has one logit"
        )
    _ = _pooling(checkpoint), _temperature(checkpoint)
    check_long_rope(checkpoint)
    saved = Saved.of(checkpoint)
    if saved.kinds:
        raise ModelError(
            f"{saved.path}: names {', '.join(saved.kinds)}; llama_bidirectional puts pairs as the model card"
            " does, without them"
        )
    check_sides(checkpoint, config, pads=False, chats=True)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> FrameEncoder:
    tokenizer, probe = checkpoint.tokenizer, checkpoint.tokenizer.encode("a")
    if not probe.sequence_ids or probe.sequence_ids[-1] is None:
        raise ModelError(f"{checkpoint.name}: its tokenizer ends a text with a token of its own")
    length = min(_MAX_LENGTH, checkpoint.tokenizer_max_length or _MAX_LENGTH)
    max_length = checkpoint.length_limit(config.max_length, length)
    return FrameEncoder(_FRAME, tokenizer, max_length, config, special_tokens=True)


def load_network(checkpoint: Checkpoint, config: ScorerConfig) -> Any:
    network = load_weights(_network_class(), checkpoint, config)
    network.pool, network.temperature = _pooling(checkpoint), _temperature(checkpoint)
    return network


def load_model(checkpoint: Checkpoint, config: ScorerConfig, engine: Engine) -> PairModel:
    network = load_network(checkpoint, config)
    network.score.to(resolve_device(config.device))

    def score_of(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = network.logits_of(hidden, mask)[:, 0]
        return scores

    return PairModel(network.model, "last_hidden_state", score_of, checkpoint, config, engine)


def batch_scores(network: Any, checkpoint: Checkpoint, _config: ScorerConfig) -> BatchScores:
    return with_gradients(network, checkpoint)


def _pooling(checkpoint: Checkpoint) -> Pooling:
    name = checkpoint.config.text("pooling") or "avg"
    if name not in _POOLINGS:
        raise checkpoint.config.wrong("pooling", f"{name} is not run here, {', '.join(_POOLINGS)} are")
    return POOLINGS[_POOLINGS[name]][1]


def _temperature(checkpoint: Checkpoint) -> float:
    if "temperature" not in checkpoint.config.fields:
        return 1.0
    temperature = checkpoint.config.required_number("temperature")
    if temperature <= 0:
        raise checkpoint.config.wrong("temperature", f"is {temperature:g}, and scores are divided by it")
    return temperature
