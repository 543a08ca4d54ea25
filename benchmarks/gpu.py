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

Flop counted are those of linear layers and attention over real tokens; the ceiling is the best of five
products of two square bfloat16 matrices. Peak is what torch allocated on the card in the call, weights too.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
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
    DECODERS,
    ENCODERS,
    MAX_LENGTH,
    Decoding,
    checkpoints,
    make_encoder,
    peers,
    random_pairs,
)
from benchmarks.gpu_run import Lines, Run, row, table
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


def encoders(run: Run) -> Lines:
    ceiling, pairs = run.ceiling(), random_pairs(6 if run.tiny else 4096)
    sizes = (4,) if run.tiny else (64, 256)
    yield f"Ceiling: {ceiling / 1e12:.3g} Tflop/s. {len(pairs)} pairs."
    yield ""
    yield from table("model", "system", "pairs/s", "share of the ceiling", "peak GiB")
    for name in ENCODERS:
        path = make_encoder(run.folder, name, run.device, tiny=run.tiny)
        scorer = run.scorer(path, max_length=MAX_LENGTH)
        encoded = scorer.encode(pairs)
        flop = ENCODERS[name].flop(transformers.AutoConfig.from_pretrained(path), encoded.tokens)

        def line(system: str, seconds: float, peak: str, flop: float = flop, name: str = name) -> str:
            return row(name, system, f"{len(pairs) / seconds:.1f}", f"{flop / seconds / ceiling:.1%}", peak)

        yield line("Scorer, tokenized before", *run.best_seconds(partial(scorer.forward, encoded)))
        yield line("Scorer", *run.best_seconds(partial(scorer.score, pairs)))
        if name == "bge-reranker-large":
            continue  # what peers do with v2-m3's shape holds for this one, which is the same
        for system, score in peers(path, run.device, run.dtype, sizes).items():
            yield line(system, *run.best_seconds(partial(score, pairs), rounds=1))
        if run.flag_embedding is not None:
            for size, seconds in flag_embedding(run, path, pairs, sizes):
                yield line(f"FlagEmbedding, {size}", seconds, "–")


def flag_embedding(
    run: Run, path: Path, pairs: list[tuple[str, str]], sizes: tuple[int, ...]
) -> Iterator[tuple[str, float]]:
    """Seconds by batch size, measured in an environment of its own."""
    file = run.folder / "pairs.json"
    file.write_text(json.dumps(pairs))
    script = Path(__file__).with_name("gpu_flag_embedding.py")
    command = [str(run.flag_embedding), str(script), str(path), str(file), run.device, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"FlagEmbedding: {done.stderr.strip()[-300:]}")
    yield from json.loads(done.stdout.splitlines()[-1])["seconds"].items()


def decoders(run: Run) -> Lines:
    ceiling = run.ceiling()
    yield from table("model", "cutoff", "ratio", "pairs/s", "share of the ceiling", "peak GiB", "padding")
    for name, shape in DECODERS.items():
        yield from decoder(run, name, Decoding(shape, run.device, run.dtype, tiny=run.tiny), ceiling)


def decoder(run: Run, name: str, decoding: Decoding, ceiling: float) -> Lines:
    for cutoff, ratio in decoding.settings:
        model = decoding.model(cutoff, ratio)
        seconds, peak = run.best_seconds(partial(decoding.score, model), rounds=1)
        share = f"{decoding.flop(cutoff) / seconds / ceiling:.1%}" if ratio == 1 else "–"
        speed = f"{decoding.pairs / seconds:.1f}"
        yield row(name, str(cutoff), str(ratio), speed, share, peak, decoding.padding)


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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="One GPU: correctness, speed, memory")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--flag-embedding", metavar="PYTHON", help="of an environment with FlagEmbedding")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of: {', '.join(PARTS)}"
    )
    given = parser.parse_args(arguments)
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

        run = Run(given.device, given.tiny, Path(directory), given.flag_embedding)
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
