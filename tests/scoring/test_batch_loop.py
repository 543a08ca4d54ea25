"""A device that computes while the next batch is made ready, and tells its errors late."""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.errors import DeviceError, ScoringError
from pipeline.scoring import ScorerConfig
from pipeline.scoring.batch_loop import BatchLoop
from pipeline.scoring.batching import Batches, Group, IndexArray, Sequences
from pipeline.scoring.device import Device
from pipeline.scoring.wanted import NotWantedError, while_wanted

LENGTHS = [3, 8, 1, 5, 8, 2, 4]
SUMS = [(index + 1) * length for index, length in enumerate(LENGTHS)]
SEQUENCES = Sequences.of(
    pa.array([[index + 1] * length for index, length in enumerate(LENGTHS)], pa.list_(pa.int32()))
)
ALL = [Group(np.arange(7))]


class LateDevice(Device):
    """Like a GPU: one batch ahead, and what goes wrong in a batch is told once its output is waited for."""

    ahead = 1

    def __init__(self, max_batch_tokens: int, failures: dict[int, Exception] | None = None) -> None:
        """failures: by how many waits there were before."""
        config = ScorerConfig(model="m", device="cpu", max_batch_tokens=max_batch_tokens)
        super().__init__(config, SimpleNamespace(hidden_size=8))
        self.log: list[str] = []
        self.failures = failures or {}
        self.waits = 0
        self.launches = 0

    def fetch(self, output: torch.Tensor) -> Callable[[], torch.Tensor]:
        number = self.launches
        self.launches += 1
        self.log.append(f"launch {number}")

        def wait() -> torch.Tensor:
            self.log.append(f"wait {number}")
            self.waits += 1
            failure = self.failures.get(self.waits - 1)
            if failure is not None:
                raise failure
            return output.float()

        return wait


class OnCuda(LateDevice):
    """Names the failing pairs as a CUDA device does."""

    def __init__(self, max_batch_tokens: int, failures: dict[int, Exception]) -> None:
        super().__init__(max_batch_tokens, failures)
        self.torch = torch.device("cuda")

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor


def sums(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
    return (ids * mask).sum(dim=1)


def run(device: Device, forward: Any = sums, groups: list[Group] | None = None) -> Any:
    return BatchLoop(device, drops_padding=True).run(SEQUENCES, groups or ALL, 0, forward)


def test_the_next_batch_is_launched_before_an_output_is_waited_for() -> None:
    device = LateDevice(8)
    scores, tokens, padded = run(device, groups=[Group(np.array([1, 4, 3])), Group(np.array([0, 2, 5, 6]))])
    assert scores.tolist() == SUMS
    assert tokens == padded == sum(LENGTHS)
    assert device.log == [
        "launch 0", "launch 1", "wait 0", "launch 2", "wait 1", "launch 3", "wait 2", "launch 4", "wait 3",
        "wait 4",
    ]  # fmt: skip


def test_the_share_that_is_done_is_told_after_each_batch() -> None:
    heard = list[float]()
    device = LateDevice(16, {0: torch.OutOfMemoryError("out of memory")})
    loop = BatchLoop(device, drops_padding=True)
    loop.run(SEQUENCES, ALL, 0, sums, heard=heard.append)
    assert heard == [pytest.approx(tokens / 31) for tokens in (8, 16, 21, 28, 31)]


def test_a_cpu_gives_up_between_two_batches_what_nobody_wants() -> None:
    batches = list[list[int]]()

    def noted(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
        batches.append(batch.tolist())
        return sums(ids, mask, batch)

    small, large = (
        Device(ScorerConfig(model="m", device="cpu", max_batch_tokens=tokens), SimpleNamespace(hidden_size=8))
        for tokens in (8, 64)
    )
    with while_wanted(lambda: len(batches) < 2), pytest.raises(NotWantedError):
        run(small, noted)
    assert len(batches) == 2
    with while_wanted(lambda: False):  # a single batch is as good as done
        assert run(large, noted)[0].tolist() == SUMS
    assert len(batches) == 3
    assert run(small, noted)[0].tolist() == SUMS  # who says nothing wants all


def test_memory_that_ran_out_is_told_a_batch_late() -> None:
    seen = list[list[int]]()

    def noted(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
        seen.append(batch.tolist())
        return sums(ids, mask, batch)

    device = LateDevice(16, {0: torch.OutOfMemoryError("out of memory")})
    scores, tokens, padded = run(device, noted)
    assert scores.tolist() == SUMS
    assert device.max_batch_tokens == 8  # half of the 16 tokens that failed, not of those launched since
    assert seen == [[1, 4], [3, 6, 0, 5, 2], [1], [4], [3], [6, 0], [5, 2]]
    assert tokens == padded == sum(LENGTHS)


def test_memory_that_runs_out_at_the_launch_leaves_what_is_under_way() -> None:
    seen = list[list[int]]()

    def forward(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
        seen.append(batch.tolist())
        if len(batch) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return sums(ids, mask, batch)

    device = LateDevice(16)
    assert run(device, forward)[0].tolist() == SUMS
    assert seen[:3] == [[1, 4], [3, 6, 0, 5, 2], [3]]  # the first is not done again
    assert device.log[:2] == ["launch 0", "wait 0"]
    assert device.max_batch_tokens == 7


class InPieces(LateDevice):
    """Memory that its allocator keeps can be had back."""

    def release(self) -> bool:
        self.log.append("release")
        return True


def test_a_batch_that_fits_once_the_allocator_gives_back_costs_no_budget() -> None:
    device = InPieces(16, {1: torch.OutOfMemoryError("out of memory")})
    assert run(device)[0].tolist() == SUMS
    assert device.max_batch_tokens == 16
    assert device.log == ["launch 0", "launch 1", "wait 0", "wait 1", "release", "launch 2", "wait 2"]


def test_a_batch_that_fails_twice_is_halved() -> None:
    device = InPieces(16, dict.fromkeys((0, 1), torch.OutOfMemoryError("out of memory")))
    assert run(device)[0].tolist() == SUMS
    assert device.max_batch_tokens == 8
    assert device.log.count("release") == 2


def test_a_sequence_that_never_fits_is_named_and_the_budget_kept() -> None:
    device = LateDevice(8, dict.fromkeys(range(9), torch.OutOfMemoryError("out of memory")))
    with pytest.raises(ScoringError, match="pair 1: its 8 tokens alone need more memory than cpu has"):
        run(device)
    assert device.max_batch_tokens == 8


BROKEN = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA` to enable"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("HIP error: device is lost"),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_an_error_told_late_is_of_the_batch_it_is_of(broken: Exception) -> None:
    """A card that failed is told as such: no pair of a CPU has such errors."""
    told = re.escape(str(broken).splitlines()[0])
    with pytest.raises(DeviceError, match=rf"cuda failed on pair 1 \(in one .* 1 others\): {told}$"):
        run(OnCuda(16, {0: broken}))
    with pytest.raises(DeviceError, match=rf"cuda failed on pair 3 \(in one .* 4 others\): {told}$"):
        run(OnCuda(16, {1: broken}))
    with pytest.raises(ScoringError, match="pair 1: "):
        run(LateDevice(64, {0: broken}))
    with pytest.raises(ScoringError, match="pair 3: RuntimeError: shapes do not match"):
        run(OnCuda(16, {1: RuntimeError("shapes do not match")}))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        torch.AcceleratorError("CUDA error: invalid configuration argument"),
    ],
)
def test_an_error_after_which_the_card_computes_is_of_its_pair(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.scoring.device._answers", lambda _: True)
    with pytest.raises(ScoringError, match="pair 1: "):
        run(OnCuda(16, {0: error}))


def test_a_torch_without_code_for_the_card_is_no_failure_of_it() -> None:
    error = torch.AcceleratorError("CUDA error: no kernel image is available for execution on the device")
    with pytest.raises(ScoringError, match="no kernel image"):
        run(OnCuda(16, {0: error}))


def test_an_error_at_the_launch_may_be_of_the_batch_before() -> None:
    """Once a kernel has failed, every later call of CUDA fails as well."""
    broken = BROKEN[0]

    def forward(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
        if 3 in batch:
            raise broken
        return sums(ids, mask, batch)

    with pytest.raises(DeviceError, match="on pair 1 "):
        run(OnCuda(16, {0: broken}), forward)
    with pytest.raises(DeviceError, match="on pair 3 "):
        run(OnCuda(16, {}), forward)


def test_going_back_cuts_what_is_left_afresh() -> None:
    size = [3]
    groups = [Group(np.array([0, 1, 2, 3])), Group(np.array([], np.int64)), Group(np.array([4, 5, 6]))]
    batches = Batches(
        SEQUENCES, groups, lambda left, _prefix: np.diff([*range(0, len(left), size[0]), len(left)])
    )
    first, second, third = batches.next(), batches.next(), batches.next()
    assert first is not None
    assert second is not None
    assert third is not None
    assert [batch.members.tolist() for batch in (first, second, third)] == [[1, 3, 0], [2], [4, 6, 5]]
    assert (first.longest, first.real_tokens) == (8, 16)
    size[0] = 2
    batches.go_back_to(second)
    left = iter(batches.next, None)
    assert [batch.members.tolist() for batch in left] == [[2], [4, 6], [5]]
    assert batches.next() is None
