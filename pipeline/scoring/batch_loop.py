"""The batch loop: sequences are cut into batches, which run until all are done or one is known to fail.

A GPU never waits: while it computes a batch, the next one is cut, laid out, copied and launched, and only
then is the first one's output waited for. A CPU takes one batch after the other.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import DeviceError, ScoringError
from pipeline.scoring.batching import (
    Batch,
    Batches,
    Group,
    IndexArray,
    Sequences,
    cut,
    cut_without_padding,
)
from pipeline.scoring.device import Device, failure
from pipeline.scoring.results import Heard
from pipeline.scoring.wanted import check_wanted

Lay = Callable[[torch.Tensor, torch.Tensor, IndexArray], dict[str, Any]]
"""(ids, mask, indices) of a batch, the first two (batch, length), padded on the right, longest first, to what
`Forward` takes. On the CPU; its tensors are then copied to the device."""

Forward = Callable[..., torch.Tensor]
"""forward(**laid), on the device, to (batch,) or (batch, width). On a GPU it must not wait for the device."""

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


def as_it_is(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> dict[str, Any]:
    """For a forward(ids, mask, batch)."""
    return {"ids": ids, "mask": mask, "batch": batch}


class BatchLoop:
    """Runs on one device, whose budget tells how large a batch may be."""

    def __init__(self, device: Device, *, drops_padding: bool = False) -> None:
        """drops_padding: what `run` is handed leaves padding out, so that only real tokens count."""
        self.device = device
        self._drops_padding = drops_padding

    def run(
        self,
        sequences: Sequences,
        groups: Iterable[Group],
        pad_id: int,
        forward: Forward,
        lay: Lay = as_it_is,
        heard: Heard | None = None,
    ) -> tuple[npt.NDArray[np.float32], int, int]:
        """Put every sequence through `lay` and `forward`, no batch holding more than one group's.

        groups: together, every sequence once; heard: told after each batch. The result is (sequences,) or
        (sequences, width) in the caller's order, with the real and the padded tokens. A batch for which the
        device's memory ran out is done again once the allocator has given back what it keeps, and then with
        the budget halved for good.
        Raises ScoringError for a sequence that never fits, or on which `forward` fails in another way; its
        index is that of the sequence. Raises DeviceError where a GPU failed. On a CPU NotWantedError, as
        `while_wanted` says.
        """
        budget = self.device.max_batch_tokens
        work = _Work(self.device, sequences, pad_id, lay, forward, self._filled)
        batches = Batches(sequences, [*groups], self._cut)
        done, outputs, padded_tokens = list[IndexArray](), list[torch.Tensor](), 0
        all_tokens, done_tokens = int(sequences.lengths.sum()), 0
        under_way, failed = deque[_Launched](), None
        while (batch := batches.next()) is not None or under_way:
            if done and not under_way:  # what a GPU was given ahead takes less time than to give it up
                check_wanted()
            if batch is not None:
                under_way.append(work.launch(batch))
            # What was not launched is dealt with before another is, but after those before it.
            ahead = self.device.ahead if batch is not None and under_way[-1].wait is not None else 0
            while len(under_way) > ahead:
                oldest = under_way.popleft()
                output = work.output(oldest)
                if isinstance(output, str):
                    under_way.clear()
                    # A GPU's memory may be there in pieces, so that even a small batch finds no room.
                    if not self.device.release() or failed == oldest.batch.place:
                        self._make_room(oldest.batch, budget, output)
                    failed = oldest.batch.place
                    batches.go_back_to(oldest.batch)
                else:
                    done.append(oldest.batch.members)
                    outputs.append(output)
                    padded_tokens += self._computed(oldest.batch)
                    done_tokens += oldest.batch.real_tokens
                    if heard is not None:
                        heard(done_tokens / max(1, all_tokens))
        if not done:
            return np.zeros(0, np.float32), 0, 0
        fetched = torch.cat(outputs).numpy()
        in_order = np.empty_like(fetched)
        in_order[np.concatenate(done)] = fetched
        return in_order, all_tokens, padded_tokens

    def _cut(self, lengths: IndexArray, prefix: int) -> IndexArray:
        if self._drops_padding:
            return cut_without_padding(lengths, self.device.max_batch_tokens)
        filled = self._filled(lengths)
        return cut(filled, prefix, self.device.max_batch_tokens, self.device.call_tokens)

    def _filled(self, lengths: IndexArray) -> IndexArray:
        """Lengths of batches whose longest sequences have these."""
        return lengths if self._drops_padding else self.device.filled(lengths)

    def _computed(self, batch: Batch) -> int:
        """Tokens that went through for it, padding included, but not its prefix."""
        if self._drops_padding:
            return batch.real_tokens
        return len(batch.members) * max(1, int(self._filled(np.array(batch.longest))))

    def _make_room(self, batch: Batch, budget: int, lack: str) -> None:
        """After memory ran out on a batch, as `lack` tells."""
        if len(batch.members) == 1:
            self.device.max_batch_tokens = budget  # batches were not too large, this sequence is
            tokens = batch.prefix + batch.longest
            raise ScoringError(
                int(batch.members[0]),
                f"its {tokens} tokens alone need more memory than {self.device.torch} has ({lack})",
            )
        self.device.shrink(self._computed(batch) + len(batch.members) * batch.prefix)


class _Launched(NamedTuple):
    """A batch that is under way, or was not launched."""

    batch: Batch
    wait: Callable[[], torch.Tensor] | None
    """Gives its output on the CPU."""
    error: Exception | None = None
    """Why it was not launched."""
    lack: str = ""
    """In its place where memory ran out: an exception's frames hold what filled it."""


class _Work(NamedTuple):
    """What is done with a batch, in two steps: until it is launched, and once its output is asked for."""

    device: Device
    sequences: Sequences
    pad_id: int
    lay: Lay
    forward: Forward
    filled: Callable[[IndexArray], IndexArray]

    def launch(self, batch: Batch) -> _Launched:
        try:
            return _Launched(batch, self.device.fetch(self._forward(batch.members)))
        except Exception as error:
            if self.device.is_out_of_memory(error):
                return _Launched(batch, None, lack=_told(error))
            return _Launched(batch, None, error)

    def output(self, launched: _Launched) -> torch.Tensor | str:
        """Or how memory ran out. Raises ScoringError where it failed in another way, or DeviceError."""
        error, members = launched.error, launched.batch.members
        if error is not None:
            raise self._named(error, members) from error
        if launched.wait is None:
            return launched.lack
        try:
            return launched.wait()
        except Exception as late:
            if not self.device.is_out_of_memory(late):
                raise self._named(late, members) from late
            return _told(late)

    def _forward(self, members: IndexArray) -> torch.Tensor:
        length = int(self.filled(self.sequences.lengths[members]).max())
        ids, mask = map(torch.from_numpy, self.sequences.pad(members, self.pad_id, max(1, length)))
        laid = self.lay(ids, mask, members)
        put = self.device.put
        return self.forward(
            **{name: put(value) if isinstance(value, torch.Tensor) else value for name, value in laid.items()}
        )

    def _named(self, error: Exception, members: IndexArray) -> ScoringError | DeviceError:
        """The error by the sequence that causes it, or of the device. On a CPU each is tried alone."""
        others = f" (in one batch with {len(members) - 1} others)" if len(members) > 1 else ""
        if (broken := failure(self.device.torch, error, f"on pair {members[0]}{others}")) is not None:
            return broken
        if self.device.torch.type == "cpu":
            for index in members:
                try:
                    self._forward(np.array([index]))
                except Exception as alone:
                    return ScoringError(int(index), f"{type(alone).__name__}: {alone}")
        return ScoringError(int(members[0]), f"{type(error).__name__}: {error}{others}")


def _told(lack: Exception) -> str:
    """Its last line: OpenVINO's first ones tell the places in its code."""
    return (str(lack).strip() or type(lack).__name__).splitlines()[-1][:200]
