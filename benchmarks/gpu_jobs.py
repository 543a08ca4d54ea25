"""The parts of gpu.py that run whole commands, each as a user starts it: jobs, a cascade, a first stage, a
training.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from filecmp import cmpfiles
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

from benchmarks.gpu_models import MAX_LENGTH, Pairs, make_encoder, random_pairs
from benchmarks.gpu_run import Lines, Run, row, table

SHARDS, TOP_K = 8, 20


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
        speed = f"{summary['pairs'] / summary['score_s']:.1f}"
        if first is None or "levels" in config:  # compared with nothing
            verdict = "–"
        else:
            verdict = "right" if _same_bytes(first, out, "run/*.parquet") else "**OTHERS**"
        first = first or out
        yield row(name, f"{seconds:.1f}", f"{summary['score_s']:.1f}", speed, verdict)


def first_stage(run: Run) -> Lines:
    """On Ray where there is a GPU. What it finds must be the nearest of the embeddings that it keeps."""
    model = make_encoder(run.folder, "base", run.device, tiny=run.tiny, embeds=True)
    pairs = random_pairs(40 if run.tiny else 20_000)
    texts = {"passages": [text for _, text in pairs], "queries": [query for query, _ in pairs[::SHARDS]]}
    for name, some in texts.items():
        lines = (json.dumps({"_id": f"{at:06d}", "text": text}) for at, text in enumerate(some))
        (run.folder / f"{name}.jsonl").write_text("\n".join(lines))
    scorer = {"model": str(model), "family": "bi_encoder", "dtype": run.dtype, "max_length": MAX_LENGTH}
    config: dict[str, Any] = {
        name: {"path": str(run.folder / f"{name}.jsonl"), "format": "jsonl"} for name in texts
    }
    config |= {
        "sources": {"dense": {"dense": {"scorer": scorer}}},
        "actors": {"min": 1, "max": 1, "num_cpus": 1, "num_gpus": int(run.on_cuda)},
        "output": {"top_k": TOP_K},
        "executor": "ray_data" if run.on_cuda else "here",
    }
    out = run.folder / "first-stage"
    yield from table("texts embedded", "seconds, start and all", "candidates", "")
    seconds, summary = _run_command("retrieve", config, out)
    verdict = "right" if _are_the_best(out) else "**OTHERS**"
    yield row(str(summary["embedded"]), f"{seconds:.1f}", str(summary["candidates"]), verdict)


def _are_the_best(out: Path) -> bool:
    """Whether every query's candidates have its largest cosines."""

    def matrix(side: str) -> npt.NDArray[np.float32]:
        read = ds.dataset(out / "embeddings/dense" / side).to_table(columns=["embedding"])
        vectors = read["embedding"].combine_chunks().flatten().to_numpy().reshape(read.num_rows, -1)
        unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    best = -np.sort(-(matrix("queries") @ matrix("passages").T))[:, :TOP_K]
    found = ds.dataset(out / "candidates").to_table(columns=["query_id", "first_stage_score"])
    found = found.sort_by([("query_id", "ascending"), ("first_stage_score", "descending")])
    scores = found["first_stage_score"].to_numpy().reshape(best.shape)
    return bool(np.abs(scores - best).max() < 1e-5)


def training(run: Run) -> Lines:
    """Twice the same, which must end with the same weights."""
    model = make_encoder(run.folder, "base", run.device, tiny=run.tiny)
    _write_rows(run.folder / "rows.jsonl", random_pairs(16 if run.tiny else 400))
    outs = [run.folder / name for name in ("trained", "trained-again")[: 1 if run.tiny else 2]]
    yield from table("training", "steps", "seconds, start and all", "mean loss at the end")
    for out in outs:
        config = _finetune_config(run, model)
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
        some = rows[len(rows) * shard // SHARDS : len(rows) * (shard + 1) // SHARDS]
        pq.write_table(pa.Table.from_pylist(some), folder / f"part-{shard}.parquet")


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


def _finetune_config(run: Run, model: Path) -> dict[str, Any]:
    gpu, dtype = run.on_cuda, run.dtype if run.on_cuda else "bfloat16"
    return {
        "data": {"path": str(run.folder / "rows.jsonl"), "train_group_size": 4, "max_len": 128},
        "scorer": {"model": str(model), "device": "cuda" if gpu else "cpu"},
        "training": {"dtype": dtype, "max_steps": 20 if gpu else 2, "per_device_train_batch_size": 4},
        "actors": {"num_gpus": 1 if gpu else 0},
    }


def _run_command(command: str, config: dict[str, Any], out: Path) -> tuple[float, dict[str, Any]]:
    """Seconds from start to end, and the summary. Raises RuntimeError with the command's last words."""
    file = out.with_suffix(".yaml")
    config = config | {"output": {**config.get("output", {}), "path": str(out)}}
    file.write_text(yaml.safe_dump(config))
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
