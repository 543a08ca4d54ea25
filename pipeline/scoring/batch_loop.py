"""The batch loop: sequences are cut into batches, which run until all are done or one is known to fail."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import ScoringError
from pipeline.scoring.batching import Group, IndexArray, Sequences, cut, cut_without_padding
from pipeline.scoring.device import Device

Forward = Callable[[torch.Tensor, torch.Tensor, IndexArray], torch.Tensor]
"""(ids, mask, indices) of a batch, the first two (batch, length), to (batch,) or (batch, width) float32."""

BatchScores = Callable[[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]
"""(ids, mask, inputs) of a batch that is padded on the right, the first two (batch, length), the columns of
EncodedPairs.inputs (batch,), to (batch, heads) scores with gradients: those that a family's model gives."""


class Forwarded(NamedTuple):
    """What a model made of encoded pairs."""

    scores: npt.NDArray[np.float32]
    """One a row of EncodedPairs.inputs, as the head gives it: (inputs,), or (inputs, cutoffs) for several."""
    tokens: int
    """Real tokens that went through the backbone."""
    padded_tokens: int
    """The same with padding: 1 - tokens / padded_tokens of the work was for nothing."""


class BatchLoop:
    """Runs on one device, whose budget tells how large a batch may be."""

    def __init__(self, device: Device, *, drops_padding: bool = False) -> None:
        """drops_padding: what `run` is handed leaves padding out, so that only real tokens count."""
        self.device = device
        self._drops_padding = drops_padding

    def run(
        self, sequences: Sequences, groups: Iterable[Group], pad_id: int, forward: Forward
    ) -> tuple[npt.NDArray[np.float32], int, int]:
        """Put every sequence through `forward`, no batch holding more than one group's.

        groups: together, every sequence once. The result is (sequences,) or (sequences, width) in the
        caller's order, with the real and the padded tokens. Where the device's memory runs out, the budget is
        halved for good and the batch done again. Raises ScoringError for a sequence that never fits, or on
        which `forward` fails in another way; its index is that of the sequence.
        """
        done, outputs, padded_tokens, budget = [], [], 0, self.device.max_batch_tokens
        for members, prefix in groups:
            left = sequences.longest_first(members)
            sizes = self._cut(sequences, left, prefix)
            while len(left):
                tokens = prefix + int(sequences.lengths[left[0]])
                batch = left[: sizes[-1]]
                ids, mask = sequences.pad(batch, pad_id)
                output = self._attempt(ids, mask, batch, forward)
                if output is not None:
                    left = left[len(batch) :]
                    sizes.pop()
                    padded_tokens += int(mask.sum()) if self._drops_padding else ids.size
                    done.append(batch)
                    outputs.append(output)
                elif len(batch) > 1:
                    self.device.shrink(int(mask.sum()) if self._drops_padding else len(batch) * tokens)
                    sizes = self._cut(sequences, left, prefix)
                else:
                    self.device.max_batch_tokens = budget  # batches were not too large, this sequence is
                    raise ScoringError(
                        int(batch[0]),
                        f"its {tokens} tokens alone need more memory than {self.device.torch} has",
                    )
        if not done:
            return np.zeros(0, np.float32), 0, 0
        fetched = torch.cat(outputs).numpy()
        in_order = np.empty_like(fetched)
        in_order[np.concatenate(done)] = fetched
        return in_order, int(sequences.lengths.sum()), padded_tokens

    def _cut(self, sequences: Sequences, left: IndexArray, prefix: int) -> list[int]:
        """The sizes of the batches to come, the next one last."""
        lengths = sequences.lengths[left]
        if self._drops_padding:
            sizes = cut_without_padding(lengths, self.device.max_batch_tokens)
        else:
            sizes = cut(lengths, prefix, self.device.max_batch_tokens, self.device.call_tokens)
        return [int(size) for size in sizes[::-1]]

    def _attempt(
        self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64], batch: IndexArray, forward: Forward
    ) -> torch.Tensor | None:
        """None where memory ran out: said after the exception, whose frames hold what filled it, is gone."""
        try:
            output = forward(
                torch.from_numpy(ids).to(self.device.torch),
                torch.from_numpy(mask).to(self.device.torch),
                batch,
            )
            return output.float().cpu()  # a GPU tells its errors late; here they are still this batch's
        except Exception as error:
            if not self.device.is_out_of_memory(error):
                raise self._named(error, ids, mask, batch, forward) from error
        return None

    def _named(
        self,
        error: Exception,
        ids: npt.NDArray[np.int64],
        mask: npt.NDArray[np.int64],
        batch: IndexArray,
        forward: Forward,
    ) -> ScoringError:
        """The error by the sequence that causes it. Each is tried alone, but not on a broken GPU."""
        reason = f"{type(error).__name__}: {error}"
        if self.device.torch.type == "cpu":
            for row, index in enumerate(batch):
                one = slice(row, row + 1)
                try:
                    forward(torch.from_numpy(ids[one]), torch.from_numpy(mask[one]), batch[one])
                except Exception as alone:
                    return ScoringError(int(index), f"{type(alone).__name__}: {alone}")
        others = f" (in one batch with {len(batch) - 1} others)" if len(batch) > 1 else ""
        return ScoringError(int(batch[0]), reason + others)
