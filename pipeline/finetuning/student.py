"""What is trained: a reranker's network, its encoding, and the scores with gradients that it gives.

Training reads the tokens that scoring reads: both come from the family's own encoder.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.errors import ConfigError, ModelError, fields_under
from pipeline.finetuning.attention import AttentionInFloat32
from pipeline.finetuning.config import DataConfig, TrainingConfig
from pipeline.finetuning.lora import Lora
from pipeline.finetuning.sampling import Group
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.batching import Sequences
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.family import TrainableFamily, all_families

_QUERY_MAX_LEN, _PASSAGE_MAX_LEN = 32, 128
_PROMPTS_AT_ONCE = 32
OPTIONS = {
    "query_prompt": "query_instruction_for_rerank",
    "passage_prompt": "passage_instruction_for_rerank",
    "prompt": "prompt",
}
"""What each prompt of a row's own replaces."""
_LIKE, _PART_TOKENS = 0.75, 1024
"""The share of the longest that a pair has to go with it, and what is enough to keep a device at work."""


def scorer_for_training(scorer: ScorerConfig, data: DataConfig) -> Scorer:
    """The scorer that cuts pairs as `data` says, in float32.

    Raises ConfigError where its family is not trained.
    """
    with fields_under("scorer"):
        made = Scorer(scorer.model_copy(update={"dtype": "float32"}))
    family = all_families()[made.family]
    if not isinstance(family, TrainableFamily):
        raise ConfigError(
            f"scorer.model {made.checkpoint.name}: the family {made.family} is not trained here. Take a model"
            " that scores pairs by a head or a token, or put a new head on an encoder by fresh_head: true",
            field="scorer.model",
        )
    limits = _limits(data, has_query_max_length="query_max_length" in family.OPTIONS, family=made.family)
    with fields_under("scorer"):
        cutting = Scorer(made.config.model_copy(update=limits))
    with _told_of(data):
        _ = cutting.encoder  # a length that the model has no positions for is told now
    return cutting


@contextmanager
def _told_of(data: DataConfig) -> Iterator[None]:
    """A length that does not fit is told under the names that it has here."""
    try:
        yield
    except (ConfigError, ModelError) as error:
        if error.field == "max_length":
            name = "max_len" if data.max_len is not None else "query_max_len + passage_max_len"
            error.field = f"data.{name.partition(' ')[0]}"
            error.message = f"data.{name}{error.message.removeprefix('max_length')}"
        raise


def _limits(data: DataConfig, *, has_query_max_length: bool, family: str) -> dict[str, int]:
    """FlagEmbedding's lengths in a scorer's terms (abc/finetune/reranker/AbsDataset.py, version 1.4.2)."""
    if data.max_len is not None:
        return {"max_length": data.max_len}
    if not has_query_max_length:
        raise ConfigError(
            f"data.max_len: needed, in place of query_max_len and passage_max_len: the family {family} cuts"
            " query and passage as one text",
            field="data.max_len",
        )
    query = data.query_max_len or _QUERY_MAX_LEN
    passage = data.passage_max_len or _PASSAGE_MAX_LEN
    return {
        "max_length": query + passage,
        "query_max_length": query + passage // 4,
        "passage_max_length": passage + query // 2,
    }


class GroupEncoder:
    """Groups to encoded pairs, all passages of the first group, then of the next."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._with = lru_cache(_PROMPTS_AT_ONCE)(self._scorer_with)
        reasons = {name: self._why_ignored(option) for name, option in OPTIONS.items()}
        self.ignored = {name: reason for name, reason in reasons.items() if reason}
        """Which prompts of a row's own don't count, and why. As in FlagEmbedding, one takes the place of the
        instruction that the config has, and is ignored where it has none."""

    def encode(self, groups: Sequence[Group]) -> EncodedPairs:
        return EncodedPairs.concat([self._of(group) for group in groups])

    def _of(self, group: Group) -> EncodedPairs:
        own = tuple(None if name in self.ignored else getattr(group, name) for name in OPTIONS)
        return self._with(*own).encode([(group.query, passage) for passage in group.passages])

    def _why_ignored(self, option: str) -> str | None:
        family = self._scorer.family
        if option not in all_families()[family].OPTIONS:
            return f"the family {family} has no {option}"
        # A decoder has a prompt of its own, which a row's replaces.
        is_there = option == "prompt" or getattr(self._scorer.config, option) is not None
        return None if is_there else f"scorer.{option} is not set"

    def _scorer_with(self, *prompts: str | None) -> Scorer:
        """prompts: in the order of `OPTIONS`."""
        given = zip(OPTIONS.values(), prompts, strict=True)
        own = {option: value for option, value in given if value is not None}
        return Scorer(self._scorer.config.model_copy(update=own)) if own else self._scorer


class Student:
    """A network in training, on its device. `module` is what is exported, but for what LoRA wraps it in."""

    def __init__(self, scorer: Scorer, training: TrainingConfig, device: torch.device) -> None:
        family = all_families()[scorer.family]
        assert isinstance(family, TrainableFamily)
        self.module = cast("Any", scorer.load_network())
        self.says = family.TRAINED
        """What config.json says of it besides."""
        self._scores = family.batch_scores(self.module, scorer.checkpoint, scorer.config)
        self._pad_id = getattr(self.module.config, "pad_token_id", None) or 0
        self._lora = Lora(self.module, training) if training.use_lora else None
        self._device = device
        if training.gradient_checkpointing:
            # What is computed a second time must be computed in the same way.
            options = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), self._attention())}
            self.module.activation_checkpointing_enable(options)
        self.module.to(device).train()

    @property
    def trained(self) -> dict[str, torch.nn.Parameter]:
        """What the optimizer changes, by name."""
        return {name: each for name, each in self.module.named_parameters() if each.requires_grad}

    def scores(self, encoded: EncodedPairs) -> torch.Tensor:
        """(pairs, heads) float32, with gradients. Pairs of like lengths go through the network together."""
        sequences = Sequences.of(encoded.sequences)
        order = sequences.longest_first(np.arange(len(encoded)))
        cuts = _cuts(sequences.lengths[order])
        with self._attention():
            parts = [self._part(sequences, encoded.inputs, part) for part in np.split(order, cuts)]
        return torch.cat(parts)[np.argsort(order)].float()

    def _part(self, sequences: Sequences, inputs: pa.Table, part: npt.NDArray[np.int64]) -> torch.Tensor:
        own = {
            name: torch.from_numpy(inputs[name].to_numpy()[part].astype(np.int64)).to(self._device)
            for name in inputs.column_names
        }
        ids, mask = (torch.from_numpy(each).to(self._device) for each in sequences.pad(part, self._pad_id))
        return self._scores(ids, mask, own)

    def _attention(self) -> AbstractContextManager[Any]:
        return AttentionInFloat32() if self._device.type == "cpu" else nullcontext()

    def merged(self) -> Any:
        """The network as it is published: a copy with the factors merged in, where there are some."""
        return self.module if self._lora is None else self._lora.merged()


def _cuts(lengths: npt.NDArray[np.int64]) -> list[int]:
    """Where lengths, longest first, are parted: else padding to the longest would be most of the work."""
    cuts, first = [], 0
    for place, length in enumerate(lengths.tolist()):
        longest = lengths[first]
        if length <= _LIKE * longest and (place - first) * longest >= _PART_TOKENS:
            cuts.append(place)
            first = place
    return cuts
