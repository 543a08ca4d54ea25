"""The decoder rerankers: a score is the last token's hidden state times one row of a head.

Never the logits of a vocabulary at every position: one number from one position is all that is asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pipeline.scoring.batch_loop import BatchLoop, BatchScores, Forwarded
from pipeline.scoring.batching import IndexArray, Sequences
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.decoder import Decoder, Prefix
from pipeline.scoring.device import Device
from pipeline.scoring.prefix import group_by_prefix

LAYERWISE_ENGINES = frozenset({"torch"})
"""Its layers are run one by one, in Python."""
PLAIN_BACKBONES = ("gemma", "llama", "mistral", "qwen2", "qwen3")
"""Language models whose logits are plain products of the last state: others scale, cap, or add to them."""
Tokens = tuple[int, int | None]
"""A token whose logit is the score, less that of the other, which may be none."""
_FIXED_ROPES = {"default", "linear", "yarn", "llama3"}
"""Others rotate by the length of the batch at hand, so that a score would depend on its neighbours."""


def check_causal(checkpoint: Checkpoint) -> None:
    """Raises ModelError where a layer would attend otherwise than to all that stands before.

    For families whose config is transformers' own.
    """
    config = checkpoint.config
    if config.flag("use_sliding_window"):
        raise config.wrong("use_sliding_window", "is not run here")
    if set(config.texts("layer_types")) - {"full_attention"}:
        raise config.wrong("layer_types", "full_attention is run here alone")
    if config.flag("use_bidirectional_attention") or config.flag("is_causal") is False:
        raise config.wrong("use_bidirectional_attention", "is not run here, causal attention is")
    for name, kind in _ropes(checkpoint):
        if kind not in _FIXED_ROPES:
            raise config.wrong(name, f"{kind!r} is not run here")


def check_plain_backbone(checkpoint: Checkpoint) -> None:
    """Raises ModelError for what is none of these, or attends otherwise than to all that stands before."""
    settings = checkpoint.architecture_config
    if checkpoint.model_type not in PLAIN_BACKBONES:
        raise checkpoint.config.wrong(
            "model_type", f"{checkpoint.model_type} is not run here, {', '.join(PLAIN_BACKBONES)} are"
        )
    check_causal(checkpoint)
    if checkpoint.model_type == "mistral" and settings.sliding_window is not None:
        raise checkpoint.config.wrong(
            "sliding_window", f"{settings.sliding_window} is not run here, attention to all before is (null)"
        )


def check_long_rope(checkpoint: Checkpoint) -> None:
    """Raises ModelError where rotary embeddings follow the length of the batch, as `check_causal` does.

    For families of many architectures. Their other ropes are the same up to what they have positions for.
    """
    for name, kind in _ropes(checkpoint):
        if kind == "longrope":
            raise checkpoint.config.wrong(
                name, f"{kind!r} is not run here: a score would depend on its batch"
            )


def _ropes(checkpoint: Checkpoint) -> Iterator[tuple[str, Any]]:
    """Fields of config.json and kinds; a kind of layer may have its own."""
    for name in ("rope_scaling", "rope_parameters"):
        rope = checkpoint.config.object(name)
        for each in (rope, *(value for value in rope.values() if isinstance(value, dict))):
            yield name, each.get("rope_type", each.get("type", "default"))


class HeadedDecoder:
    """A backbone up to the last cutoff, with a head's row for each cutoff.

    Candidates of one query begin with the same tokens. The backbone is causal, so what it makes of these does
    not depend on what follows: it is computed once a query, where that pays.

    Batches stay padded on every device: attention over packed ones, torch's varlen_attn, reads no beginning
    that sequences share (and has no soft cap, were Gemma 2's ever to be used here).
    """

    def __init__(
        self,
        backbone: Any,
        heads: torch.Tensor,
        config: ScorerConfig,
        cutoffs: list[int],
        compress_layers: tuple[int, ...] = (),
        score_cap: float | None = None,
    ) -> None:
        """heads: (cutoffs, width) float32. score_cap: bounds scores by tanh, as Gemma 2 does its logits."""
        # It alone is causal without a mask, whatever config.json asks for.
        backbone.set_attn_implementation("sdpa")
        device = Device(config, backbone.config)
        self._loop = BatchLoop(device)
        self._heads = heads.to(device.torch)
        self._decoder = Decoder(
            backbone.to(device.torch).eval(), cutoffs, compress_layers, config.compress_ratio
        )
        self._score_cap = score_cap

    @property
    def max_batch_tokens(self) -> int:
        return self._loop.device.max_batch_tokens

    @torch.inference_mode()
    def forward(self, sequences: pa.ListArray, inputs: pa.Table) -> Forwarded:
        """Scores are (inputs,) for one cutoff, (inputs, cutoffs) for several."""
        whole = Sequences.of(sequences)
        before, after = (inputs[name].to_numpy() for name in ("query_length", "prompt_length"))
        groups = group_by_prefix(whole, before, self._loop.device.max_batch_tokens)
        shared = np.zeros(len(before), np.int64)
        for group in groups:
            shared[group.members] = group.prefix
        last: dict[bytes, Prefix] = {}

        def prefix_of(index: int) -> Prefix | None:
            """The one of the query at hand is kept, that of the query before is not."""
            if not shared[index]:
                return None
            ids = whole.values[whole.starts[index] :][: shared[index]]
            if ids.tobytes() not in last:
                last.clear()
                on_device = self._loop.device.put(torch.from_numpy(ids[None].astype(np.int64)))
                last[ids.tobytes()] = self._decoder.read_prefix(on_device)
            return last[ids.tobytes()]

        def lay(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> dict[str, Any]:
            query, prompt = (torch.from_numpy(counts[batch]) for counts in (before - shared, after))
            return {
                "ids": ids,
                "lengths": mask.sum(dim=1),
                "query_lengths": query,
                "prompt_lengths": prompt,
                "first": int(batch[0]),
            }

        def scores_of(first: int, **laid: torch.Tensor) -> torch.Tensor:
            hidden = self._decoder.forward(**laid, prefix=prefix_of(first))
            return _scores(hidden, self._heads, self._score_cap)

        scores, tokens, padded = self._loop.run(whole.without_first(shared), groups, 0, scores_of, lay)
        prefixes = sum(group.prefix for group in groups)
        scores = scores.reshape(len(before), len(self._heads))
        scores = scores[:, 0] if len(self._heads) == 1 else scores
        return Forwarded(scores, tokens + prefixes, padded + prefixes)


def with_gradients(
    backbone: Any,
    heads: Callable[[], torch.Tensor],
    config: ScorerConfig,
    cutoffs: list[int],
    compress_layers: tuple[int, ...] = (),
    score_cap: float | None = None,
) -> BatchScores:
    """The same parts where scores have gradients. heads: gives their rows as they are, (cutoffs, width)."""
    backbone.set_attn_implementation("sdpa")  # see HeadedDecoder
    decoder = Decoder(backbone, cutoffs, compress_layers, config.compress_ratio)

    def scores_of(ids: torch.Tensor, mask: torch.Tensor, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        hidden = decoder.forward(ids, mask.sum(dim=1), inputs["query_length"], inputs["prompt_length"])
        return _scores(hidden, heads().float(), score_cap)

    return scores_of


def of_tokens(network: Any, tokens: Tokens, config: ScorerConfig) -> HeadedDecoder:
    """What scores by the logits of one or two tokens. network: a causal language model of transformers."""
    head = _token_head(network, tokens).detach()
    return HeadedDecoder(network.model, head, config, [network.config.num_hidden_layers])


def of_tokens_with_gradients(network: Any, tokens: Tokens, config: ScorerConfig) -> BatchScores:
    """The same where scores have gradients, also those of the head."""
    layers = [network.config.num_hidden_layers]
    return with_gradients(network.model, lambda: _token_head(network, tokens), config, layers)


def _token_head(network: Any, tokens: Tokens) -> torch.Tensor:
    """(1, width) float32: a token's row of the vocabulary's head, less that of the other if there is one."""
    (token, other), rows = tokens, network.lm_head.weight
    row: torch.Tensor = rows[[token]].float()
    return row if other is None else row - rows[[other]].float()


def _scores(hidden: torch.Tensor, heads: torch.Tensor, score_cap: float | None) -> torch.Tensor:
    """(batch, cutoffs, width) hidden states to (batch, cutoffs)."""
    scores = (hidden * heads).sum(dim=-1)
    if score_cap is None:
        return scores
    capped = torch.tanh(scores / score_cap) * score_cap
    return torch.where(scores.isfinite(), capped, scores)  # what is not finite shall be seen
