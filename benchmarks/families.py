"""How long do Scorer and FlagEmbedding take for the decoder rerankers, and how much memory?

Run it from the repository root, on Linux. FlagEmbedding 1.4.2 runs two of these models with transformers 4.46
alone, so it has an environment of its own, whose python is handed in:

    PYTHONPATH=. python benchmarks/families.py --collection DIR --peer-python PYTHON [--queries 2]
        [--candidates 100] [--max-length 256] [--rounds 2] [--threads 2] [--peer-batch 4]
        [--families gemma minicpm gemma2]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), run.bm25.txt (TREC). Queries
are drawn with a fixed seed; each brings its first candidates, in the order of the run. Both systems cut a
pair to --max-length tokens in the same way, FlagEmbedding's, where the prompt at the end comes on top.

The checkpoints are made here: layouts and tokenizers of the tiny ones in tests/data, other sizes, random
weights, float32. The tokenizers use 1,100 tokens and make more of a text than the published ones do. gemma
has the published vocabulary of 256,000; FlagEmbedding computes the logit of each at every position. The
smaller the layers, the more that weighs: compare the vocabulary's share of the weights in the output with the
published checkpoint's, 21 %.

Every measurement is a process of its own, and the systems take turns: every setting once a round, Scorer,
then FlagEmbedding. The clock covers the scoring call alone, tokenization included; before it, the model is
loaded and scores three short pairs. Memory is what Linux counts as resident. `peak` is the most that the
process held during the call (VmHWM, reset right before it), `above` the same without what it held when the
call began: the model and the libraries. Scorer's weights stay mapped from their file, and embeddings of
tokens that do not occur are never read; with 1,100 tokens these are nearly all of gemma's 250 MiB, which its
peak so lacks.

pairs/s are of the best time; speed-up and memory ratio are FlagEmbedding's best time and largest peak over
Scorer's; `difference` is the largest between their scores, `deviation` the standard deviation of Scorer's.
FlagEmbedding's batch is not its default of 128 pairs but what was its fastest of 1, 2, 4, ... 32 (gemma) or
128 (the others) on two cores: more cost it cache and memory, and it computes its first batch twice in every
call.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.collection import SEED, Pairs, rows_of, with_files
from benchmarks.family_checkpoints import FAMILIES, ROOT, Options, make_checkpoint

OURS, PEER = "Scorer", "FlagEmbedding"
WARM_UP = [("what is a wing", "a wing lifts"), ("what lifts", "a wing"), ("heat", "heat flows along a plate")]


class Measured(NamedTuple):
    """What a child found; memory in MiB. Of Scorer, also the tokens of all pairs, and those it read."""

    seconds: float
    peak: float
    above: float
    scores: list[float]
    versions: str
    tokens: int = 0
    tokens_read: int = 0
    passages_cut: int = 0


Results = dict[str, dict[str, list[Measured]]]  # by setting and system, one a round


def load_ours(spec: Options) -> Callable[[Pairs], Any]:
    scoring, given = import_module("pipeline.scoring"), spec["options"]
    config = scoring.ScorerConfig(model=spec["model"], device="cpu", max_length=spec["max_length"], **given)
    scorer = scoring.Scorer(config)

    def score(pairs: Pairs) -> Any:
        encoded = scorer.encode(pairs)  # the two steps of Scorer.score, for what they tell
        scored = scorer.forward(encoded)
        cut = int(np.count_nonzero(encoded.pairs["passage_cut"].to_numpy()))
        return scored.scores, len(encoded.sequences.flatten()), scored.tokens, cut

    return score


def load_peer(spec: Options) -> Callable[[Pairs], Any]:
    sizes = {"batch_size": spec["peer_batch"], "max_length": spec["max_length"]}
    peer_class = getattr(import_module("FlagEmbedding"), spec["peer_class"])
    reranker = peer_class(spec["model"], use_fp16=False, devices="cpu", **sizes, **spec["options"])
    return lambda pairs: (reranker.compute_score(pairs),)


def measure(file: Path) -> None:
    """In the child: one measurement of one system, as the file asks for it. The result lies beside it."""
    spec = json.loads(file.read_text())
    torch.set_num_threads(spec["threads"])
    score = {OURS: load_ours, PEER: load_peer}[spec["system"]](spec)
    pairs = [(query, passage) for query, passage in spec["pairs"]]
    score(WARM_UP)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
    before, start = resident("VmRSS"), perf_counter()
    scores, *counts = score(pairs)
    seconds, peak = perf_counter() - start, resident("VmHWM")
    packages = ["torch", "transformers", *([PEER] if spec["system"] == PEER else [])]
    versions = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    numbers = np.asarray(scores, np.float64).tolist()
    result = Measured(seconds, peak, peak - before, numbers, ", ".join(versions), *counts)
    file.with_suffix(".result").write_text(json.dumps(result))


def resident(field: str) -> float:
    """MiB of this process's memory, as /proc/self/status has them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field + ":"))


def run_child(python: Path, spec: Options, directory: Path) -> Measured:
    file = directory / "spec.json"
    file.write_text(json.dumps(spec))
    pools = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    environment = os.environ | dict.fromkeys(pools, str(spec["threads"])) | {"PYTHONPATH": str(ROOT)}
    command = [str(python), __file__, "--child", str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{spec['system']} ended with {done.returncode}\n{done.stderr[-2000:]}")
    return Measured(*json.loads(file.with_suffix(".result").read_text()))


def draw_candidates(collection: Path, queries: int, candidates: int) -> list[Pairs]:
    """For each query drawn from the collection's BM25 run, its first candidates."""
    texts = {row["_id"]: row["text"] for row in rows_of(collection / "queries.jsonl")}
    passages = {row["_id"]: row["title"] + " " + row["text"] for row in rows_of(collection / "docs.jsonl")}
    hits: dict[str, Pairs] = {}
    for line in (collection / "run.bm25.txt").read_text().splitlines():
        query_id, _, passage_id, *_ = line.split()
        hits.setdefault(query_id, []).append((texts[query_id], passages[passage_id]))
    drawn = random.Random(SEED).sample(list(hits), min(queries, len(hits)))
    return [hits[query_id][:candidates] for query_id in drawn]


def measure_family(name: str, pairs: Pairs, arguments: argparse.Namespace) -> Results:
    """The systems take turns; their pairs and their options are the same."""
    family, pythons = FAMILIES[name], {OURS: Path(sys.executable), PEER: arguments.peer_python}
    found: Results = {setting: {system: [] for system in pythons} for setting in family.settings}
    with tempfile.TemporaryDirectory() as directory:
        weights = make_checkpoint(family, Path(directory))
        spec = {"model": directory, "peer_class": family.peer_class, "pairs": pairs}
        spec |= {option: getattr(arguments, option) for option in ("peer_batch", "max_length", "threads")}
        for _ in range(arguments.rounds):
            for setting, options in family.settings.items():
                for system, python in pythons.items():
                    turn = spec | {"system": system, "options": options}
                    found[setting][system].append(run_child(python, turn, Path(directory)))
    print_family(name, weights, found)
    return found


def print_family(name: str, weights: int, found: Results) -> None:
    sizes, ours = FAMILIES[name].sizes, next(iter(found.values()))[OURS][0]
    share, pairs = sizes["vocab_size"] * sizes["hidden_size"] / weights, len(ours.scores)
    print(f"\n{name}: {', '.join(f'{key} {value}' for key, value in sizes.items())}")
    print(f"{weights / 1e6:.1f} million weights, {share:.0%} of them the vocabulary's;", end=" ")
    print(f"{ours.tokens / pairs:.0f} tokens a pair (mean), {ours.passages_cut / pairs:.0%} of passages cut")
    print(f"tokens that {OURS} need not read again: {1 - ours.tokens_read / ours.tokens:.1%}")
    titles = ("best s", "median s", "pairs/s", "peak MiB", "above MiB", "speed-up", "memory ratio")
    print(f"{'setting':20}{'system':14}" + "".join(f"{title:>13}" for title in titles), end="")
    print(f"{'difference':>13}{'deviation':>13}")
    for setting, systems in found.items():
        print(f"{setting:20}{PEER:14}{_columns(systems[PEER])}")
        print(f"{'':20}{OURS:14}{_columns(systems[OURS])}{_comparison(systems[OURS], systems[PEER])}")


def _columns(rounds: list[Measured]) -> str:
    seconds, pairs = [each.seconds for each in rounds], len(rounds[0].scores)
    peak, above = max(each.peak for each in rounds), max(each.above for each in rounds)
    return f"{min(seconds):13.2f}{median(seconds):13.2f}{pairs / min(seconds):13.1f}{peak:13.0f}{above:13.0f}"


def _comparison(ours: list[Measured], peer: list[Measured]) -> str:
    speed_up = min(each.seconds for each in peer) / min(each.seconds for each in ours)
    ratio = max(each.peak for each in peer) / max(each.peak for each in ours)
    scores, others = (np.array([each.scores for each in rounds]) for rounds in (ours, peer))
    return f"{speed_up:13.2f}{ratio:13.2f}{np.abs(scores - others).max():13.1e}{scores.std():13.2f}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Scorer beside FlagEmbedding on the decoder rerankers")
    parser.add_argument(
        "--collection", type=with_files("run.bm25.txt"), required=True, help="docs, queries and a BM25 run"
    )
    parser.add_argument("--peer-python", type=Path, required=True, help="of FlagEmbedding's environment")
    numbers = {"queries": 2, "candidates": 100, "max-length": 256, "rounds": 2, "threads": 2, "peer-batch": 4}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=[*FAMILIES])
    return parser.parse_args()


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        measure(Path(sys.argv[2]))
        return
    start, arguments = perf_counter(), parse_arguments()
    drawn = draw_candidates(arguments.collection, arguments.queries, arguments.candidates)
    import_module("benchmarks.scorer").print_machine(arguments.threads)
    print(", ".join(f"{name} {value}" for name, value in vars(arguments).items() if isinstance(value, int)))
    counts = [len(pairs) for pairs in drawn]
    print(
        f"{arguments.collection.name}: {len(counts)} queries, {min(counts)} to {max(counts)} candidates each"
    )
    for name in arguments.families:
        found = measure_family(name, [pair for pairs in drawn for pair in pairs], arguments)
    print(f"\n{PEER} with {next(iter(found.values()))[PEER][0].versions}")
    print(f"{(perf_counter() - start) / 60:.1f} minutes in all")


if __name__ == "__main__":
    main()
