"""The parts of gpu.py that run whole commands, each as a user starts it: jobs, a cascade, a training."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from filecmp import cmpfiles
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.gpu_models import MAX_LENGTH, Pairs, make_encoder, random_pairs
from benchmarks.gpu_run import Lines, Run, row, table

SHARDS = 8


def jobs(run: Run) -> Lines:
    """On a fresh machine the first start is slow."""
    small, large = (
        make_encoder(run.folder, name, run.device, tiny=run.tiny) for name in ("base", "bge-reranker-v2-m3")
    )
    _write_table(run.folder / "table", random_pairs(40 if run.tiny else 20_000))
    yield from table("job", "seconds, start and all", "of them scoring", "pairs/s while scoring", "bytes")
    first = None
    for name, config in _rerank_configs(run.folder, small, large, gpu=run.on_cuda):
        out = run.folder / name.replace(" ", "-")
        seconds, summary = _run_command("rerank", config, out)
        first = first or out
        same = "levels" in config or _same_bytes(first, out, "run/*.parquet")
        speed = f"{summary['pairs'] / summary['score_s']:.1f}"
        verdict = "right" if same else "**OTHERS**"
        yield row(name, f"{seconds:.1f}", f"{summary['score_s']:.1f}", speed, verdict)


def training(run: Run) -> Lines:
    """Twice the same, which must end with the same weights."""
    model = make_encoder(run.folder, "base", run.device, tiny=run.tiny)
    _write_rows(run.folder / "rows.jsonl", random_pairs(16 if run.tiny else 400))
    outs = [run.folder / name for name in ("trained", "trained-again")[: 1 if run.tiny else 2]]
    yield from table("training", "steps", "seconds, start and all", "mean loss at the end")
    for out in outs:
        config = _finetune_config(run.folder, model, gpu=run.on_cuda)
        seconds, summary = _run_command("finetune", config, out)
        yield row(out.name, str(summary["steps"]), f"{seconds:.1f}", f"{summary['loss']:.4f}")
    if len(outs) > 1:
        same = _same_bytes(outs[0], outs[1], "model/*.safetensors")
        yield f"\nTwo trainings end with {'the same bytes: right' if same else '**OTHER BYTES**'}."


def _write_table(folder: Path, pairs: Pairs) -> None:
    """A candidate table in some files; a hundred candidates have the first one's query."""
    folder.mkdir()
    rows = [
        {
            "query_id": f"q{at // 100}",
            "query": pairs[at - at % 100][0],
            "passage_id": f"d{at}",
            "passage": text,
        }
        for at, (_, text) in enumerate(pairs)
    ]
    for shard in range(SHARDS):
        pq.write_table(pa.Table.from_pylist(rows[shard::SHARDS]), folder / f"part-{shard}.parquet")


def _write_rows(file: Path, pairs: Pairs) -> None:
    """Training rows of one positive and three negatives."""
    with file.open("w") as stream:
        for at in range(0, len(pairs) - 3, 4):
            texts = [passage for _, passage in pairs[at : at + 4]]
            stream.write(json.dumps({"query": pairs[at][0], "pos": texts[:1], "neg": texts[1:]}) + "\n")


def _rerank_configs(
    folder: Path, small: Path, large: Path, *, gpu: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and config: in one process, then on Ray, where an actor has the GPU, or half of it."""

    def level(model: Path, share: float, number: int = 1) -> dict[str, Any]:
        scorer = {"model": str(model), "dtype": "auto", "max_length": MAX_LENGTH}
        actors = {"min": number, "max": number, "num_cpus": 1, "num_gpus": share if gpu else 0}
        return {"scorer": scorer, "actors": actors}

    table = {"input": {"path": str(folder / "table")}, "shard_pairs": 1000}
    yield "one process", table | level(large, 1) | {"executor": "here"}
    if gpu:
        yield "Ray, one actor", table | level(large, 1)
        yield "Ray, two actors of half a GPU", table | level(large, 0.5, 2)
        levels = [level(small, 0.5) | {"keep": 30}, level(large, 0.5) | {"keep": 10}]
        yield "Ray, two levels of half a GPU", table | {"levels": levels}


def _finetune_config(folder: Path, model: Path, *, gpu: bool) -> dict[str, Any]:
    return {
        "data": {"path": str(folder / "rows.jsonl"), "train_group_size": 4, "max_len": 128},
        "scorer": {"model": str(model), "device": "cuda" if gpu else "cpu"},
        "training": {"dtype": "bfloat16", "max_steps": 20 if gpu else 2, "per_device_train_batch_size": 4},
        "actors": {"num_gpus": 1 if gpu else 0},
    }


def _run_command(command: str, config: dict[str, Any], out: Path) -> tuple[float, dict[str, Any]]:
    """Seconds from start to end, and the summary. Raises RuntimeError with the command's last words."""
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config | {"output": {"path": str(out)}}))
    begin = perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"pipeline.{command}", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])},
    )
    if done.returncode:
        raise RuntimeError(f"{command}: {(done.stderr or done.stdout).strip()[-400:]}")
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return perf_counter() - begin, summary


def _same_bytes(first: Path, second: Path, pattern: str) -> bool:
    """Whether the files of two outputs are the same, by name and content."""

    def names(of: Path) -> Sequence[str]:
        return sorted(str(file.relative_to(of)) for file in of.glob(pattern))

    common = names(first)
    return (
        bool(common)
        and common == names(second)
        and cmpfiles(first, second, common, shallow=False)[0] == common
    )
