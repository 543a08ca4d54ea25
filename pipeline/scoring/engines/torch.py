"""PyTorch, on whatever device it has. Most encoders take their batches without padding."""

from typing import Any

import torch

from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Computation, Output
from pipeline.scoring.packing import packed
from pipeline.scoring.prepacked import gelu_in_place, prepack
from pipeline.scoring.weights import cast_backbone

INSTALL = "pip install torch"


def is_available() -> bool:
    return True


def supports(_family: str, _checkpoint: Checkpoint, _config: ScorerConfig) -> None:
    """Whatever there is."""


def prepare(network: Any, output: Output, device: torch.device, dtype: torch.dtype) -> Computation:
    model = cast_backbone(network, dtype).to(device).eval()
    model.config.use_cache = False  # of decoders that embed: keys and values of all layers, for nobody
    without_padding = packed(model, output, device, dtype)
    if without_padding is not None:
        prepack(model, device, dtype)
    gelu_in_place(model)
    if without_padding is None:
        return Computation(_Padded(model, output).run)
    return Computation(without_padding.run, drops_padding=True, lay=without_padding.lay)


class _Padded:
    def __init__(self, model: Any, output: Output) -> None:
        self._model, self._output = model, output

    def run(self, ids: torch.Tensor, mask: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        outputs = self._model(input_ids=ids, attention_mask=mask, return_dict=True, **inputs)
        result: torch.Tensor = outputs[self._output]
        return result
