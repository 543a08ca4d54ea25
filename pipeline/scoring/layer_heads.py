"""Decoders with a head of one number after several layers, which two of the BGE rerankers are."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import ConfigError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.decoder import Decoder
from pipeline.scoring.device import Forwarded, batch_tokens, resolve_device, run_batches, sigmoid
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.weights import read_tensors


def cutoff_layers(checkpoint: Checkpoint, config: ScorerConfig) -> list[int]:
    """The layers after which a score is asked for, in the order asked; by default the last.

    Raises ConfigError for one after which the checkpoint has no head.
    """
    published = checkpoint.config
    last = published["num_hidden_layers"]
    known = range(published["start_layer"], last + 1, published.get("layer_sep", 1))
    wanted = list(config.cutoff_layers or [last])
    wrong = [layer for layer in wanted if layer not in known]
    if wrong:
        raise ConfigError(
            f"scorer.cutoff_layers: {checkpoint.name} has no head after layer {wrong[0]}; it has heads after"
            f" {', '.join(map(str, known))}"
        )
    return wanted


class LayerHeadModel:
    """A trunk up to the last cutoff, with the heads of the cutoffs."""

    def __init__(
        self,
        trunk: Any,
        heads: torch.Tensor,
        config: ScorerConfig,
        cutoffs: list[int],
        compress_layers: tuple[int, ...] = (),
        score_cap: float | None = None,
    ) -> None:
        """heads: (cutoffs, width) float32. score_cap: bounds scores by tanh, as Gemma 2 does its logits."""
        self._device = resolve_device(config.device)
        self._heads = heads.to(self._device)
        self._decoder = Decoder(
            trunk.to(self._device).eval(), cutoffs, compress_layers, config.compress_ratio
        )
        self._max_batch_tokens = batch_tokens(self._device, config, trunk.config)
        self._score_cap = score_cap
        self._normalize = config.normalize

    @torch.inference_mode()
    def forward(self, encoded: EncodedPairs) -> Forwarded:
        """Scores are (pairs,) for one cutoff, (pairs, cutoffs) for several."""
        before, after = (encoded.pairs[name].to_numpy() for name in ("query_length", "prompt_length"))

        def logits(ids: torch.Tensor, mask: torch.Tensor, batch: npt.NDArray[np.int64]) -> torch.Tensor:
            query = torch.from_numpy(before[batch]).to(ids.device)
            prompt = torch.from_numpy(after[batch]).to(ids.device)
            scores = (self._decoder.forward(ids, mask, query, prompt) * self._heads).sum(dim=-1)
            return (
                scores if self._score_cap is None else torch.tanh(scores / self._score_cap) * self._score_cap
            )

        scores, tokens, padded = run_batches(
            encoded.sequences, self._max_batch_tokens, 0, self._device, logits
        )
        scores = scores.reshape(len(encoded), len(self._heads))
        scores = scores[:, 0] if len(self._heads) == 1 else scores
        return Forwarded(sigmoid(scores) if self._normalize else scores, tokens, padded)


def load_heads(checkpoint: Checkpoint, numbers: list[int]) -> torch.Tensor:
    """(numbers, width) float32: the heads with these numbers, in this order."""
    names = [f"lm_head.{number}.linear_head.weight" for number in numbers]
    tensors = read_tensors(checkpoint, names)
    return torch.stack([tensors[name][0].float() for name in names])
