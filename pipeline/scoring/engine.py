"""What computes a network: an engine, one module in `engines/`. Its file is all that it takes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch

from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.config import ScorerConfig

Output = Literal["logits", "last_hidden_state"]
"""Of a transformers network: (batch, labels), or (batch, length, width)."""


def as_padded(ids: torch.Tensor, mask: torch.Tensor, **inputs: torch.Tensor) -> dict[str, Any]:
    """A batch as it is."""
    return {"ids": ids, "mask": mask, **inputs}


class Computation(NamedTuple):
    """A network as the batch loop calls it, in two steps: the first may run ahead of the device."""

    run: Callable[..., torch.Tensor]
    """run(**laid), on the device: what `lay` gave, to the output."""
    drops_padding: bool = False
    """Whether it leaves padding out, so that only real tokens cost something."""
    lay: Callable[..., dict[str, Any]] = as_padded
    """lay(ids, mask, **inputs), on the CPU: all (batch, length), padded on the right, longest first; to the
    arguments of `run`, `mask` among them. The loop copies its tensors to the device."""


class Engine(Protocol):
    """A module in `engines/`."""

    __name__: str

    INSTALL: str
    """How to come by it, in words, for messages."""

    def is_available(self) -> bool:
        """Whether it is installed here."""

    def supports(self, family: str, checkpoint: Checkpoint, config: ScorerConfig) -> str | None:
        """Why it does not run this checkpoint of this family with these options; None where it does."""

    def prepare(self, network: Any, output: Output, device: torch.device, dtype: torch.dtype) -> Computation:
        """`network`, as a family's load_network gives it, for evaluation; it may be changed in place.

        What is handed to the computation lies on `device`. dtype: of the backbone; heads run in float32.
        """


class Inputs(NamedTuple):
    """A batch, as a Computation is called with it."""

    ids: torch.Tensor
    mask: torch.Tensor
    more: Mapping[str, torch.Tensor]


@runtime_checkable
class QuantizingEngine(Engine, Protocol):
    """An engine that can compute in int8, for ScorerConfig.quantization."""

    def quantize(self, network: Any, output: Output, batches: Sequence[Inputs]) -> dict[str, bytes]:
        """`network` in int8, calibrated on the batches: files by name, all that `load_quantized` needs."""

    def load_quantized(self, files: dict[str, bytes], dtype: torch.dtype) -> Computation:
        """dtype: of what is left in floating point. Raises ModelError where it can't be loaded."""

    def versions(self) -> dict[str, str]:
        """Of what it computes and quantizes with."""
