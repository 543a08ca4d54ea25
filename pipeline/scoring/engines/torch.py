"""PyTorch, on whatever device it has. On a CPU some networks take their batches without padding."""

from typing import Any

import torch

from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.engine import Computation, Output
from pipeline.scoring.packing import PackedClassifier, can_pack
from pipeline.scoring.weights import cast_backbone

INSTALL = "pip install torch"


def is_available() -> bool:
    return True


def supports(_family: str, _checkpoint: Checkpoint, _config: ScorerConfig) -> None:
    """Whatever there is."""


def prepare(network: Any, output: Output, device: torch.device, dtype: torch.dtype) -> Computation:
    packs = output == "logits" and can_pack(network, device)
    model = cast_backbone(network, dtype).to(device).eval()
    if packs:
        return Computation(PackedClassifier(model).logits, drops_padding=True)
    return Computation(_Padded(model, output).run)


class _Padded:
    def __init__(self, model: Any, output: Output) -> None:
        self._model, self._output = model, output

    def run(self, ids: torch.Tensor, mask: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        outputs = self._model(input_ids=ids, attention_mask=mask, return_dict=True, **inputs)
        result: torch.Tensor = outputs[self._output]
        return result
