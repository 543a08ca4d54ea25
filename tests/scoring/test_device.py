"""Memory that really runs out: torch's allocator refuses, or the process has no more to give."""

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.errors import DeviceError, ModelError, ScoringError
from pipeline.scoring import ScorerConfig
from pipeline.scoring.batch_loop import BatchLoop, Forward
from pipeline.scoring.batching import Group, IndexArray, Sequences
from pipeline.scoring.config import Dtype
from pipeline.scoring.device import Device, failure, is_out_of_memory, resolve_device
from tests.conftest import TINY

LENGTHS = [3, 8, 1, 5, 8, 2, 4]
MODEL = SimpleNamespace(hidden_size=8)
MORE_THAN_THERE_IS = 2**48


def loop(max_batch_tokens: int, *, drops_padding: bool = False) -> BatchLoop:
    config = ScorerConfig(model="m", device="cpu", max_batch_tokens=max_batch_tokens)
    return BatchLoop(Device(config, MODEL), drops_padding=drops_padding)


def sequences() -> Sequences:
    return Sequences.of(
        pa.array([[index + 1] * length for index, length in enumerate(LENGTHS)], pa.list_(pa.int32()))
    )


def forward_within(tokens: int, seen: list[list[int]]) -> Forward:
    """Sums the ids of a sequence; takes more memory than there is where a batch is above `tokens`."""

    def forward(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
        seen.append(batch.tolist())
        torch.empty(MORE_THAN_THERE_IS if ids.numel() > tokens else 1, dtype=torch.uint8)
        return (ids * mask).sum(dim=1).float()

    return forward


def test_where_padding_is_dropped_only_real_tokens_count() -> None:
    seen: list[list[int]] = []
    runner = loop(16, drops_padding=True)
    sums, tokens, padded = runner.run(sequences(), [Group(np.arange(7))], 0, forward_within(99, seen))
    assert sums.tolist() == [(index + 1) * length for index, length in enumerate(LENGTHS)]
    assert seen == [[1, 4], [3, 6, 0, 5, 2]]
    assert tokens == padded == sum(LENGTHS)


@pytest.mark.parametrize(
    ("dtype", "drops_padding", "positions", "lengths"),
    [
        ("bfloat16", False, None, {8}),
        ("bfloat16", False, 6, {6, 8}),  # filled up within them; what is longer stays as it is
        ("bfloat16", True, None, {3, 8}),  # packing fills its row, not each sequence
        ("float32", False, None, {3, 8}),
    ],
)
def test_padded_batches_in_bfloat16_have_few_lengths(
    dtype: Dtype, drops_padding: bool, positions: int | None, lengths: set[int]
) -> None:
    config = ScorerConfig(model="m", device="cpu", dtype=dtype, max_batch_tokens=8)
    model = SimpleNamespace(hidden_size=8, max_position_embeddings=positions)
    seen = set[int]()

    def forward(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
        seen.add(ids.shape[1])
        return (ids * mask).sum(dim=1).float()

    runner = BatchLoop(Device(config, model), drops_padding=drops_padding)
    three_and_eight = Sequences.of(pa.array([[1] * 3, [2] * 8], pa.list_(pa.int32())))
    sums, tokens, computed = runner.run(three_and_eight, [Group(np.arange(2))], 0, forward)
    assert sums.tolist() == [3, 16]
    assert seen == lengths
    assert (tokens, computed) == (11, sum(lengths) if len(lengths) > 1 else 16)


def test_the_budget_is_halved_until_a_batch_fits_and_stays_so() -> None:
    runner, seen = loop(64), list[list[int]]()
    sums, tokens, padded = runner.run(sequences(), [Group(np.arange(7))], 0, forward_within(16, seen))
    assert sums.tolist() == [(index + 1) * length for index, length in enumerate(LENGTHS)]
    assert tokens == sum(LENGTHS)
    assert runner.device.max_batch_tokens == 12
    # Of 7 sequences of up to 8 tokens 3 are tried, then 1; none is done twice once it fitted.
    assert [len(batch) for batch in seen][:3] == [7, 3, 1]
    fitted = [index for batch in seen[2:] for index in batch]
    assert sorted(fitted) == list(range(7))
    seen.clear()
    runner.run(sequences(), [Group(np.arange(7))], 0, forward_within(16, seen))
    assert sorted(index for batch in seen for index in batch) == list(range(7))
    assert padded >= tokens


def test_a_sequence_that_never_fits_is_named() -> None:
    runner = loop(64)
    told = r"pair 1: its 8 tokens alone need more memory than cpu has \(.*DefaultCPUAllocator: can't allocate"
    with pytest.raises(ScoringError, match=told):
        runner.run(sequences(), [Group(np.arange(7))], 0, forward_within(7, []))
    assert runner.device.max_batch_tokens == 64


def test_a_shared_prefix_takes_room_in_a_batch() -> None:
    seen = list[list[int]]()
    loop(64).run(sequences(), [Group(np.arange(7), prefix=24)], 0, forward_within(100, seen))
    assert [len(batch) for batch in seen] == [2, 2, 2, 1]


def test_batches_hold_one_group_each() -> None:
    seen = list[list[int]]()
    groups = [Group(np.array([0, 2, 4])), Group(np.array([1, 3, 5, 6]))]
    sums, _, _ = loop(64).run(sequences(), groups, 0, forward_within(100, seen))
    assert seen == [[4, 0, 2], [1, 3, 6, 5]]
    assert sums.tolist() == [(index + 1) * length for index, length in enumerate(LENGTHS)]


def test_another_error_is_no_lack_of_memory_and_names_the_sequence() -> None:
    calls = list[int]()

    def forward(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
        calls.append(len(batch))
        if 4 in batch:
            raise RuntimeError("shapes do not match")
        return ids.sum(dim=1).float()

    runner = loop(64)
    with pytest.raises(ScoringError, match=r"pair 4: RuntimeError: shapes do not match"):
        runner.run(sequences(), [Group(np.arange(7))], 0, forward)
    assert runner.device.max_batch_tokens == 64
    assert calls[0] == 7


def test_an_error_of_the_whole_batch_says_so() -> None:
    def forward(ids: torch.Tensor, mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
        if len(batch) > 1:
            raise ValueError("too many")
        return ids.sum(dim=1).float()

    with pytest.raises(ScoringError, match=r"pair 1: ValueError: too many \(in one batch with 6 others\)"):
        loop(64).run(sequences(), [Group(np.arange(7))], 0, forward)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("could not create a primitive", True),
        ("could not execute a primitive", True),
        ("could not create a memory object", True),
        ("could not create a primitive descriptor for the matmul primitive. Run workload with", False),
        ("Exception from src/node.cpp:794:\n[CPU] Gather\nFailed to allocate 96 bytes of memory\n\n", True),
        ("Exception from src/node.cpp:823:\n[CPU] Transpose node with name 'x' can't alloc\n\n", True),
        ("Exception from src/node.cpp:823:\n[CPU] FullyConnected: could not create a primitive\n\n", True),
        ("Check 'std::bad_alloc' failed", True),
        ("CUDA error: out of memory", True),
        ("HIP error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("CUDA error: an illegal memory access was encountered", False),
        ("shapes do not match", False),
    ],
)
def test_what_a_cpus_libraries_say_where_memory_runs_out(text: str, expected: bool) -> None:
    assert is_out_of_memory(RuntimeError(text)) is expected


def test_no_sequences() -> None:
    nothing = Sequences.of(pa.array([], pa.list_(pa.int32())))
    sums, tokens, padded = loop(64).run(nothing, [Group(np.arange(0))], 0, forward_within(1, []))
    assert (sums.shape, tokens, padded) == ((0,), 0, 0)


def test_devices_that_are_not_there() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match=r"device cuda:3: this process sees 0 CUDA devices"):
            resolve_device("cuda:3")


def test_a_card_that_is_lost_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that fell off its bus, or left its container: Ray gives it to the next process."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("HIP_VISIBLE_DEVICES", raising=False)
    lost, mistake = "was given the card 1 and CUDA finds none", "this process sees 0 CUDA devices"
    for version, given, error, told in (
        ("13.0", "1", DeviceError, lost),
        ("13.0", "", ModelError, mistake),
        (None, "1", ModelError, mistake),  # a torch for CPUs
    ):
        monkeypatch.setattr(torch.version, "cuda", version)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        with pytest.raises(error, match=told):
            resolve_device("cuda")


@pytest.mark.parametrize(
    ("text", "is_failed"),
    [
        ("No CUDA GPUs are available", True),
        ("Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before", True),
        ("The NVIDIA driver on your system is too old", False),
        ("Torch not compiled with CUDA enabled", False),
    ],
)
def test_what_cuda_says_at_its_start_where_the_card_failed(text: str, is_failed: bool) -> None:
    # No card is here, so it does not answer.
    assert (failure(torch.device("cuda"), RuntimeError(text), "in a test") is not None) is is_failed


@pytest.mark.parametrize(("dtype", "tokens"), [("float32", 1024), ("float16", 1024), ("bfloat16", 4096)])
def test_the_budget_of_a_cpu_is_its_dtypes(dtype: Any, tokens: int) -> None:
    config = ScorerConfig(model="m", device="cpu", dtype=dtype)
    assert Device(config, MODEL).max_batch_tokens == tokens
    assert Device(config.model_copy(update={"max_batch_tokens": 7}), MODEL).max_batch_tokens == 7


WIDE, UNKNOWN = {"hidden_size": 1024, "intermediate_size": 4096}, 8192


@pytest.mark.parametrize(
    ("fields", "width", "inner"),
    [
        (WIDE, 1024, 4096),
        ({"hidden_size": 1024}, 1024, 4096),
        ({"hidden_size": 1024, "intermediate_size": None}, 1024, 4096),  # gpt_neo
        ({"hidden_size": [512, 1024], "intermediate_size": [2048, 4096]}, 1024, 4096),  # a width a layer
        ({"text_config": WIDE}, 1024, 4096),  # gemma3, which reads images, too
        ({"d_latents": 1280}, UNKNOWN, 4 * UNKNOWN),  # perceiver
    ],
)
def test_the_budget_of_a_card_leaves_half_of_it(
    fields: dict[str, Any], width: int, inner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_config = SimpleNamespace(**fields.get("text_config", fields))
    network = SimpleNamespace(get_text_config=lambda: text_config)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    memory = SimpleNamespace(total_memory=4 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: memory)
    device = Device(ScorerConfig(model="m", device="cuda", dtype="float32"), network)
    assert device.max_batch_tokens == max(1024, 2 * 2**30 // ((4 * width + 3 * inner) * 4 * 4))


def test_float32_is_computed_as_such_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 allows it, ten bits would do."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    torch.backends.cuda.matmul.allow_tf32 = True
    resolve_device("cuda")
    assert not torch.backends.cuda.matmul.allow_tf32


def test_a_process_that_runs_out_of_memory_scores_all_the_same() -> None:
    script = f"""
import re, resource
from pathlib import Path
import numpy as np
from pipeline import log
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.lean_imports import lean_imports
log.configure()
queries = ["panda " + f"{{number:08b}}".replace("0", "a").replace("1", "b") for number in range(256)]
pairs = [(query, "The giant panda is a bear. " * 60) for query in queries]
budgets = (2048, 1_000_000)
careful, scorer = (
    Scorer(ScorerConfig(model={TINY!r}, device="cpu", max_batch_tokens=tokens)) for tokens in budgets
)
with lean_imports():
    few = careful.score(pairs)
    scorer.score(pairs[:1])
now = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (now + 10 * 2**20,) * 2)
scores = scorer.score(pairs)
print("difference", np.abs(scores - few).max() < 1e-5, scorer.model.max_batch_tokens < 1_000_000)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout.strip() == "difference True True", done.stderr
    assert "out of memory device=cpu batch_tokens=" in done.stderr
