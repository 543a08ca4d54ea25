"""bge-reranker-v2-gemma: a causal language model whose logit of "Yes" after the prompt is the score.

One number from one position: the last hidden state times one row of the head, never the logits of a
vocabulary of 256,000 at every position.
"""

import numpy as np
import numpy.typing as npt
import torch
from transformers import GemmaModel

from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.decoder import Decoder
from pipeline.scoring.device import Forwarded, batch_tokens, resolve_device, run_batches, sigmoid
from pipeline.scoring.encoding import EncodedPairs
from pipeline.scoring.prompting import PROMPT_OPTIONS, YES_OR_NO, PromptEncoder, first_token
from pipeline.scoring.weights import load_weights, read_tensors

HANDLES = "GemmaForCausalLM trained to answer Yes (bge-reranker-v2-gemma)"
OPTIONS = PROMPT_OPTIONS


def handles(checkpoint: Checkpoint) -> bool:
    return checkpoint.architecture == "GemmaForCausalLM"


class YesLogit:
    """The trunk and the head's row of "Yes"."""

    def __init__(self, checkpoint: Checkpoint, config: ScorerConfig) -> None:
        self._device = resolve_device(config.device)
        trunk = load_weights(GemmaModel, checkpoint, config, dtype=getattr(torch, config.dtype))
        yes = first_token(checkpoint, "Yes")
        head = read_tensors(checkpoint, ["lm_head.weight"]).get("lm_head.weight", trunk.embed_tokens.weight)
        self._yes = head[yes].float().to(self._device)
        self._decoder = Decoder(trunk.to(self._device).eval(), [trunk.config.num_hidden_layers])
        self._max_batch_tokens = batch_tokens(self._device, config, trunk.config)
        self._normalize = config.normalize

    @torch.inference_mode()
    def forward(self, encoded: EncodedPairs) -> Forwarded:
        nothing = torch.zeros(0, dtype=torch.long, device=self._device)

        def logits(ids: torch.Tensor, mask: torch.Tensor, _batch: npt.NDArray[np.int64]) -> torch.Tensor:
            last: torch.Tensor = self._decoder.forward(ids, mask, nothing, nothing)[:, 0]
            return torch.mv(last, self._yes)

        scores, tokens, padded = run_batches(
            encoded.sequences, self._max_batch_tokens, 0, self._device, logits
        )
        return Forwarded(sigmoid(scores) if self._normalize else scores, tokens, padded)


def load_encoder(checkpoint: Checkpoint, config: ScorerConfig) -> PromptEncoder:
    return PromptEncoder(checkpoint, config, YES_OR_NO)


def load_model(checkpoint: Checkpoint, config: ScorerConfig) -> YesLogit:
    return YesLogit(checkpoint, config)
