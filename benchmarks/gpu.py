"""What does one GPU do with this code? Correctness first, then speed, memory, its running out, two replicas.

    benchmarks/gpu.sh [--device cuda] [--tiny] [--flag-embedding PYTHON] [--only PART ...]

It writes a dated Markdown note to $OUT, or to benchmarks/, line by line as it goes, and exits with 1 where a
score is wrong or a part fails. All weights are random and made here: tiny checkpoints as the tests build them
for correctness, the published shapes for speed. Texts are random words, their lengths drawn (lognormal), cut
at 512 tokens. sentence-transformers is measured where it is installed, FlagEmbedding where --flag-embedding
names the Python of an environment that has it; each at several batch sizes. Every part has its own limit of
seconds; what it has not reached by then is left out and said so. Whole commands on Ray run where --only asks
for them (Jobs, "First stage", Endpoint, Training): they take some minutes more. `--device cpu --tiny` runs
every part on any machine, to see that it runs: its numbers say nothing.

The dtype is bfloat16, or float16 on a card without it (before Ampere). Flop counted are those of linear
layers and attention over real tokens; the ceiling is the best of five products of two square matrices. Peak
is what torch allocated on the card in the call, weights too: those of one model alone, up to its cutoff.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.gpu_endpoint import endpoint
from benchmarks.gpu_jobs import first_stage, jobs, training
from benchmarks.gpu_models import (
    MAX_LENGTH,
    checkpoints,
    make_encoder,
    random_pairs,
)
from benchmarks.gpu_run import Lines, Run, row, table
from benchmarks.gpu_speed import decoders, encoders
from pipeline.scoring import Scorer, ScorerConfig
from tests.scoring.checkpoints import network_of

FAR = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.5}
"""How far a tiny checkpoint's score may be from that of float32 on a CPU."""


class OutOfTimeError(BaseException):
    """No Exception, so that nothing on the way takes it for a failure of its own."""


def correctness(run: Run) -> Lines:
    yield from table("checkpoint", "dtype", "drops padding", "largest difference", "deviation", "")
    pairs = [(query, "river bank " * count + "heat") for query in ("heat", "a panda") for count in range(12)]
    for name, model, options in checkpoints(run.folder):
        expected = Scorer(ScorerConfig.model_validate({"model": model, "device": "cpu", **options})).score(
            pairs
        )
        for dtype in FAR if run.on_cuda else ("bfloat16",):
            if (run.dtype, dtype) == ("float16", "bfloat16"):
                continue  # the card has none
            scorer = run.scorer(model, **{**options, "dtype": dtype})
            far = float(np.abs(scorer.score(pairs) - expected).max())
            network = getattr(scorer.model, "_network", None)
            drops = "yes" if network is not None and network.drops_padding else "no"
            verdict = "right" if far <= FAR[dtype] else "**WRONG**"
            yield row(name, dtype, drops, f"{far:.1e}", f"{expected.std():.2f}", verdict)


def no_waiting(run: Run) -> Lines:
    if not run.on_cuda:
        yield "Not asked of a CPU."
        return
    scorer = run.scorer(make_encoder(run.folder, "base", run.device, tiny=run.tiny))
    encoded = scorer.encode(random_pairs(64))
    scorer.forward(encoded)
    torch.cuda.set_sync_debug_mode("error")
    try:
        scorer.forward(encoded)
        yield "No call of the encoders' way waits for the device."
    except Exception as error:  # whatever class torch and the scorer tell it in
        yield f"**A call waits for the device**: {error}"
    finally:
        torch.cuda.set_sync_debug_mode("default")


def memory_runs_out(run: Run) -> Lines:
    path, pairs = make_encoder(run.folder, "base", run.device, tiny=run.tiny), random_pairs(64)
    enough = run.scorer(path, max_length=MAX_LENGTH).score(pairs)
    budget = 2**22
    scorer = run.scorer(path, max_length=MAX_LENGTH, max_batch_tokens=budget)
    scorer.score(pairs[:2])
    if run.on_cuda:
        total = torch.cuda.get_device_properties(run.device).total_memory
        left = torch.cuda.memory_allocated() + 100 * 2**20
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(left / total)
    else:
        network_of(scorer).register_forward_pre_hook(refuse_large, with_kwargs=True)
    try:
        found = scorer.score(pairs)
    finally:
        if run.on_cuda:
            torch.cuda.set_per_process_memory_fraction(1.0)
    far = float(np.abs(found - enough).max())
    verdict = "right" if far <= FAR[run.dtype] and scorer.model.max_batch_tokens < budget else "**WRONG**"
    yield f"Budget {budget}, then {scorer.model.max_batch_tokens}; largest difference {far:.1e}: {verdict}."


def refuse_large(_module: Any, _inputs: Any, options: dict[str, Any]) -> None:
    """In place of a card whose memory ends."""
    if options["input_ids"].numel() > 1000:
        raise torch.OutOfMemoryError("provoked")


def two_replicas(run: Run) -> Lines:
    path = make_encoder(run.folder, "base", run.device, tiny=run.tiny)
    count, spawn = 6 if run.tiny else 4096, get_context("spawn")
    yield from table("replicas", "pairs/s together")
    for number in (2,) if run.tiny else (1, 2):
        # The alarm ends the wait for one that has died.
        ready, done = (spawn.Barrier(number + 1) for _ in range(2))
        arguments = run, path, count, ready, done
        replicas = [spawn.Process(target=replica, args=arguments) for _ in range(number)]
        try:
            for each in replicas:
                each.start()
            ready.wait()
            begin = perf_counter()
            done.wait()
            yield row(str(number), f"{number * count / (perf_counter() - begin):.1f}")
        finally:
            for each in replicas:
                each.kill()
            for each in replicas:
                each.join(timeout=5)


def replica(run: Run, path: Path, count: int, ready: Barrier, done: Barrier) -> None:
    """In a process of its own."""
    scorer, pairs = run.scorer(path, max_length=MAX_LENGTH), random_pairs(count)
    scorer.score(pairs[:64])
    ready.wait()
    scorer.score(pairs)
    done.wait()


PARTS: dict[str, tuple[int, Callable[[Run], Lines]]] = {
    "Correctness": (110, correctness),
    "Does the device wait?": (25, no_waiting),
    "Encoders": (150, encoders),
    "Decoders": (130, decoders),
    "Memory runs out": (30, memory_runs_out),
    "Two replicas": (70, two_replicas),
    "Jobs": (240, jobs),
    "First stage": (120, first_stage),
    "Endpoint": (120, endpoint),
    "Training": (120, training),
}
"""With the seconds that each may take. Without --only: those up to "Two replicas", in all 515."""
COMMANDS = ("Jobs", "First stage", "Endpoint", "Training")
"""Parts that need Ray, and are left out where they are not asked for."""


def lines_of(run: Run, limit_s: int, part: Callable[[Run], Lines]) -> Lines:
    """A part's lines until its time is out."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(limit_s)
    try:
        yield from part(run)
    except OutOfTimeError:
        yield f"\nThe rest was left out: its {limit_s} s were over."
    except Exception as error:  # one part that fails leaves the others their turn
        yield f"\n**FAILED**: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        run.forget()


def one_card(device: str) -> str:
    """`cpu`, or `cuda` with the card that it names as the only one, for the processes that parts start, too.

    Raises ValueError for what is neither, or not there.
    """
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdecimal())):
        raise ValueError(f"{device}: is no CUDA device: cuda, or cuda:1")
    if number:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        cards = [str(card) for card in range(int(number) + 1)] if seen is None else seen.split(",")
        if int(number) >= len(cards):
            raise ValueError(f"{device}: CUDA_VISIBLE_DEVICES names {len(cards)} of the cards: {seen}")
        os.environ["CUDA_VISIBLE_DEVICES"] = cards[int(number)]
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{device}: no such card here; --device cpu --tiny runs every part on any machine")
    return kind


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One GPU: correctness, speed, memory")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--flag-embedding", metavar="PYTHON", help="of an environment with FlagEmbedding")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of: {', '.join(PARTS)}"
    )
    given = parser.parse_args(arguments)
    try:
        device = one_card(given.device)
    except ValueError as error:
        parser.error(f"--device {error}")
    parts = given.only or [title for title in PARTS if title not in COMMANDS]
    target = Path(os.environ.get("OUT") or Path(__file__).parent) / f"gpu-{datetime.now(UTC):%Y-%m-%d}.md"
    written = list[str]()
    # A machine that is lent may go at any time: what is known by then shall be there.
    with tempfile.TemporaryDirectory() as directory, target.open("w", buffering=1) as note:

        def tell(*lines: str) -> None:
            written.extend(lines)
            for line in lines:
                print(line, flush=True)
                print(line, file=note)

        run = Run(device, given.tiny, Path(directory), given.flag_embedding)
        name = torch.cuda.get_device_name() if run.on_cuda else "no card: a CPU, its numbers say nothing"
        tell(f"# One GPU, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "", f"{name}, {run.dtype}", "")
        tell(f"torch {torch.__version__}, transformers {transformers.__version__}, {os.cpu_count()} cores")
        for title in parts:
            limit_s, part = PARTS[title]
            tell("", f"## {title}", "")
            # Tiny shapes are for seeing every part run, on a busy machine too.
            for line in lines_of(run, 600 if run.tiny else limit_s, part):
                tell(line)
    print(f"\n{target}")
    return int(any("**" in line for line in written))


if __name__ == "__main__":
    sys.exit(main())
