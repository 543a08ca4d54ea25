"""Words that query and passage share, by Lucene's formula, of shards that one statistics belongs to.

A passage's score is the sum over the query's words, each as often as it stands there, of
    ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))
N: passages that have a word; n: those that have this one; f: how often it stands in the passage; length: the
passage's words (Lucene's BM25Similarity, with exact lengths where Lucene keeps one byte). All of these are of
the whole corpus, so that a score does not depend on how it was parted.

OUTPUT/_work/SOURCE/postings-SHARD.parquet   a row a word of a passage: word, row (int32), count (int32)
OUTPUT/_work/SOURCE/words-SHARD.parquet      a row a word: word, passages (int64)
OUTPUT/_work/SOURCE/statistics.parquet       the same of the whole corpus, of the words that queries have
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import csr_array

from pipeline.retrieval.config import Bm25Config
from pipeline.retrieval.plan import Job
from pipeline.retrieval.search import Best, IntArray, ScoreArray
from pipeline.retrieval.shards import WORK, Done, Shard, read_shard, read_table, write_table
from pipeline.retrieval.tokens import tokenize


def index(job: Job, source: str, shard: str) -> Done:
    """Count the words of a shard of passages. Gives the passages that have any, and the words in all."""
    passages = read_shard(job.output, "passages", Shard.named(shard), ["passage"])["passage"]
    postings = count_words([text.as_py() for text in passages], _config(job, source))
    files = write_table(job.output, f"{WORK}/{source}/postings-{shard}.parquet", postings)
    numbers = postings.group_by("word", use_threads=False).aggregate([([], "count_all")])
    words = pa.table({"word": numbers["word"], "passages": numbers["count_all"]})
    files |= write_table(job.output, f"{WORK}/{source}/words-{shard}.parquet", words)
    counts = {
        "passages": len(postings["row"].unique()),
        "words": pc.sum(postings["count"]).as_py() or 0,
    }
    return Done(counts, files)


def statistics(job: Job, source: str, shards: list[str], queries: list[str]) -> Done:
    """In how many passages each word of the queries stands."""
    config, wanted = _config(job, source), set[str]()
    for block in queries:
        for text in read_shard(job.output, "queries", Shard.named(block), ["query"])["query"]:
            wanted.update(tokenize(text.as_py(), config))
    words = pa.array(sorted(wanted), pa.string())
    numbers = np.zeros(len(words), np.int64)
    for shard in shards:
        here = read_table(job.output, f"{WORK}/{source}/words-{shard}.parquet")
        at = pc.index_in(here["word"].combine_chunks(), value_set=words)
        known = at.is_valid()
        numbers[at.drop_null().to_numpy()] += here["passages"].filter(known).to_numpy()
    table = pa.table({"word": words, "passages": numbers}).filter(pa.array(numbers > 0))
    return Done({}, write_table(job.output, f"{WORK}/{source}/statistics.parquet", table))


def search(job: Job, source: str, block: str, shards: list[str], passages: int, words: int) -> pa.Table:
    """The best of some shards for a shard of queries: `Best.table`.

    passages, words: of the whole corpus, as `index` counts them.
    """
    config = _config(job, source)
    known = read_table(job.output, f"{WORK}/{source}/statistics.parquet")
    texts = read_shard(job.output, "queries", Shard.named(block), ["query"])["query"].to_pylist()
    queries, used = _query_words(texts, known["word"].combine_chunks(), config)
    number = known["passages"].take(used).to_numpy()
    weights = np.log(1 + (passages - number + 0.5) / (number + 0.5))
    vocabulary = known["word"].combine_chunks().take(used)
    best = Best(len(texts), job.depth(source), job.id_type("passages"))
    for name in shards:
        postings = read_table(job.output, f"{WORK}/{source}/postings-{name}.parquet")
        ids = read_shard(job.output, "passages", Shard.named(name), ["passage_id"])[
            "passage_id"
        ].combine_chunks()
        shard = _weights(postings, vocabulary, len(ids), words / max(1, passages), config)
        scores = (queries @ (shard * weights[:, None]).tocsr()).tocsr()
        hits, values, rows = _top(scores, job.depth(source), best.floor)
        best.add(Shard.named(name).number, hits, values, ids.take(pa.array(rows)), rows)
    return best.table()


def count_words(texts: Sequence[str], config: Bm25Config) -> pa.Table:
    """A row a distinct word of a text: word, the text's place `row`, `count`; by words, then rows."""
    found = [tokenize(text, config) for text in texts]
    rows = np.repeat(np.arange(len(found), dtype=np.int64), [len(words) for words in found])
    words = pa.array(chain.from_iterable(found), pa.string()).dictionary_encode()
    order = pc.sort_indices(words.dictionary).to_numpy().astype(np.int64)
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    codes = places[words.indices.to_numpy()] if len(rows) else rows
    pairs, counts = np.unique(codes * max(1, len(found)) + rows, return_counts=True)
    word, row = np.divmod(pairs, max(1, len(found)))
    return pa.table(
        {
            "word": words.dictionary.take(pa.array(order)).take(pa.array(word)),
            "row": pa.array(row, pa.int32()),
            "count": pa.array(counts, pa.int32()),
        }
    )


def _query_words(
    texts: Sequence[str], known: pa.StringArray, config: Bm25Config
) -> tuple[csr_array, pa.Array]:
    """(queries, words): how often each word stands in each query; and the places of the words in `known`."""
    counts = count_words(texts, config)
    at = pc.index_in(counts["word"].combine_chunks(), value_set=known)
    counts = counts.filter(at.is_valid())
    used, column = np.unique(at.drop_null().to_numpy(), return_inverse=True)
    values = counts["count"].to_numpy().astype(np.float64)
    shape = (len(texts), len(used))
    return csr_array((values, (counts["row"].to_numpy(), column)), shape=shape), pa.array(used)


def _weights(
    postings: pa.Table, vocabulary: pa.StringArray, passages: int, mean_length: float, config: Bm25Config
) -> csr_array:
    """(words, passages): what a word of the vocabulary counts in a passage, before its own weight."""
    rows, counts = postings["row"].to_numpy(), postings["count"].to_numpy().astype(np.float64)
    lengths = np.bincount(rows, weights=counts, minlength=passages)
    at = pc.index_in(postings["word"].combine_chunks(), value_set=vocabulary)
    used = at.is_valid().to_numpy(zero_copy_only=False)
    rows, counts = rows[used], counts[used]
    saturation = config.k1 * (1 - config.b + config.b * lengths[rows] / mean_length)
    values = counts / (counts + saturation)
    return csr_array((values, (at.drop_null().to_numpy(), rows)), shape=(len(vocabulary), passages))


def _top(scores: csr_array, k: int, floor: ScoreArray) -> tuple[IntArray, ScoreArray, IntArray]:
    """(queries, scores, rows) of each query's best k, none below its floor; of equal ones the first."""
    scores.sort_indices()
    values = scores.data.astype(np.float32)
    best = [np.zeros(0, np.int64)]
    bounds = zip(scores.indptr[:-1], scores.indptr[1:], strict=True)
    best += [first + _best(values[first:last], k, floor[query]) for query, (first, last) in enumerate(bounds)]
    at = np.concatenate(best)
    queries = np.repeat(np.arange(len(floor)), [len(places) for places in best[1:]])
    return queries, values[at], scores.indices[at]


def _best(values: ScoreArray, k: int, least: np.float32) -> npt.NDArray[np.int64]:
    """Where the k largest of them stand, ascending."""
    if len(values) > k:
        least = max(least, np.partition(values, len(values) - k)[len(values) - k])
    at = np.flatnonzero(values >= least)
    return at if len(at) <= k else np.sort(at[np.argsort(-values[at], kind="stable")[:k]])


def _config(job: Job, source: str) -> Bm25Config:
    config = job.config.sources[source].bm25
    assert config is not None
    return config
