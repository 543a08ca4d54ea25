"""Dense search against faiss and sentence-transformers, and the embeddings that it keeps."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from sentence_transformers.util import semantic_search

from pipeline.errors import ConfigError, InputError, ModelError, OutputError
from pipeline.retrieval import steps
from pipeline.retrieval.dense import best_of
from pipeline.retrieval.search import Best
from pipeline.retrieval.vectors import Vectors, read_vectors
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import MINILM, TINY
from tests.retrieval.tables import config, make, rows_of, write_texts
from tests.scoring.checkpoints import make_trunk

PASSAGES = {f"p{number}": f"{word} {other}" for number, (word, other) in enumerate(
    (word, other) for word in ("panda", "bridge", "bread", "engine") for other in ("bear", "river", "oven")
)}  # fmt: skip
QUERIES = {"q1": "what eats bamboo?", "q2": "how to bake", "q3": ""}


def dense(folder: Path, output: dict[str, Any] | None = None, dtype: str = "float32", **options: Any) -> Any:
    sources = {"minilm": {"dense": {"scorer": {"model": MINILM, "device": "cpu"} | options, "dtype": dtype}}}
    return config(folder, sources=sources, output=output or {}, shard_passages=5)


def vectors(values: Any, windows: list[int] | None = None) -> Vectors:
    counts = np.array(windows or [1] * len(values))
    return Vectors(values, np.cumsum(counts) - counts, np.array([]))


def best(queries: Any, parts: list[Vectors], ids: list[list[str]], k: int) -> list[list[tuple[str, float]]]:
    """Each query's (passage, score), best first."""
    found = Best(len(queries), k, pa.string())
    for number, part in enumerate(parts):
        hits, scores, rows = best_of(torch.from_numpy(queries), part, found.floor, k, cosine=False)
        found.add(number, hits, scores, pa.array(ids[number]).take(pa.array(rows)), rows)
    result: list[list[tuple[str, float]]] = [[] for _ in queries]
    for row in found.table().to_pylist():
        result[row["query"]].append((row["passage_id"], row["score"]))
    return result


def test_the_top_k_is_that_of_a_flat_index() -> None:
    chance = np.random.default_rng(3)
    queries, corpus = (chance.standard_normal((rows, 24)).astype(np.float32) for rows in (40, 3000))
    index = faiss.IndexFlatIP(24)
    index.add(corpus)
    scores, places = index.search(queries, 30)
    parts = [vectors(corpus[start : start + 700]) for start in range(0, 3000, 700)]
    ids = [
        [f"{place:04d}" for place in range(start, min(start + 700, 3000))] for start in range(0, 3000, 700)
    ]
    found = best(queries, parts, ids, 30)
    assert [[int(passage) for passage, _ in row] for row in found] == places.tolist()
    np.testing.assert_allclose([[score for _, score in row] for row in found], scores, rtol=1e-5, atol=1e-5)


def test_equal_vectors_tie_wherever_they_stand() -> None:
    chance = np.random.default_rng(4)
    vector = chance.standard_normal(100).astype(np.float32)
    corpus = np.concatenate([chance.standard_normal((50, 100)).astype(np.float32) * 0.01, vector[None]])
    corpus = np.concatenate([corpus[[50]], corpus, corpus[[50]]])
    ids = [f"{number:03d}" for number in range(len(corpus))]
    (found,) = best(
        vector[None] * 3, [vectors(corpus), vectors(corpus)], [ids, [f"a{one}" for one in ids]], 4
    )
    assert [passage for passage, _ in found] == ["000", "051", "052", "a000"]
    assert len({score for _, score in found}) == 1


@pytest.mark.parametrize("bfloat16", [True, False])
def test_what_the_products_lose_changes_nothing(bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that differ by far less than what bfloat16 takes from their vectors, or gives them."""
    monkeypatch.setattr("pipeline.retrieval.products.has_bfloat16", lambda _: bfloat16)
    chance = np.random.default_rng(7)
    half = 1 + 2**-8  # between two numbers of bfloat16
    signs = np.resize([1, -1], (6000, 64))
    corpus = (signs * (half + chance.uniform(-1e-4, 1e-4, (6000, 64)))).astype(np.float32)
    queries = (half + chance.uniform(-1e-4, 1e-4, (40, 64))).astype(np.float32)
    windows = [1, 2, 3] * 333 + [2]  # of 1,000 passages in 2,000 vectors
    firsts = np.cumsum([0, *windows[:-1]])
    parts, ids, maxima = [], [], []
    for start in (0, 1000, 2000):
        part = corpus[2 * start : 2 * start + 2000]
        parts.append(vectors(part, windows))
        ids.append([f"{place:04d}" for place in range(start, start + 1000)])
        maxima.append(np.maximum.reduceat(queries.astype(np.float64) @ part.T, firsts, axis=1))
    found = best(queries, parts, ids, 20)
    scores = np.concatenate(maxima, axis=1).astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    assert [[int(passage) for passage, _ in row] for row in found] == order.tolist()


def test_a_passages_best_window_counts() -> None:
    corpus = np.array([[1, 0], [0, 3], [2, 0], [0, 0], [0, 1]], np.float32)
    found = best(np.eye(2, dtype=np.float32), [vectors(corpus, [2, 2, 1])], [["a", "b", "c"]], 2)
    assert found == [[("b", 2.0), ("a", 1.0)], [("a", 3.0), ("c", 1.0)]]


def test_the_parts_that_are_compared_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(6)
    windows = [1, 7, 2, 1, 1, 23, *chance.integers(1, 4, 60).tolist()]
    corpus = chance.standard_normal((sum(windows), 12)).astype(np.float32)
    queries = chance.standard_normal((9, 12)).astype(np.float32)
    ids = [f"{number:03d}" for number in range(len(windows))]
    found = {}
    for size in (1, 5, 8, sum(windows), 2048):
        monkeypatch.setattr("pipeline.retrieval.dense._PART_VECTORS", size)
        found[size] = best(queries, [vectors(corpus, windows)], [ids], 10)
    assert all(rows == found[2048] for rows in found.values())
    maxima = np.maximum.reduceat(queries.astype(np.float64) @ corpus.T, np.cumsum([0, *windows[:-1]]), axis=1)
    order = np.argsort(-maxima, axis=1)[:, :10]
    assert [[int(passage) for passage, _ in row] for row in found[2048]] == order.tolist()


@pytest.mark.parametrize("bfloat16", [True, False])
def test_the_floor_rises_and_never_above_the_last_of_the_best(
    bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.retrieval.products.has_bfloat16", lambda _: bfloat16)
    chance = np.random.default_rng(8)
    corpus, queries = (chance.standard_normal((rows, 32)).astype(np.float32) for rows in (5000, 40))
    floor = np.full(40, -np.inf, np.float32)
    best_of(torch.from_numpy(queries), vectors(corpus), floor, 10, cosine=False)
    last = np.sort(queries.astype(np.float64) @ corpus.T, axis=1)[:, -10]
    assert np.isfinite(floor).all()
    assert (floor <= last.astype(np.float32)).all()


def test_no_passages_no_hits() -> None:
    assert best(np.eye(2, dtype=np.float32), [vectors(np.zeros((0, 2), np.float32), [])], [[]], 3) == [[], []]


def test_the_search_is_that_of_sentence_transformers(tmp_path: Path) -> None:
    write_texts(tmp_path, PASSAGES, QUERIES)
    summary = make(dense(tmp_path, {"top_k": 4}))
    peer = SentenceTransformer(str(Scorer(ScorerConfig(model=MINILM)).checkpoint.path), device="cpu")
    queries, corpus = (
        peer.encode(list(texts.values()), convert_to_tensor=True) for texts in (QUERIES, PASSAGES)
    )
    expected = semantic_search(queries, corpus, top_k=4)
    found = rows_of(tmp_path)
    ids = list(PASSAGES)
    assert [row["passage_id"] for row in found] == [
        ids[int(hit["corpus_id"])] for row in expected for hit in row
    ]
    scores = [hit["score"] for row in expected for hit in row]
    np.testing.assert_allclose([row["first_stage_score"] for row in found], scores, atol=1e-5)
    assert (summary.embedded, summary.reused, summary.unmatched) == (15, 0, 0)


def test_what_comes_after_normalize_makes_vectors_of_other_lengths(tmp_path: Path) -> None:
    write_texts(tmp_path, PASSAGES, QUERIES)
    torch.manual_seed(0)
    last = Dense(32, 16, activation_function=torch.nn.Identity())
    torch.nn.init.normal_(last.linear.bias, std=0.5)
    trunk = Transformer(str(make_trunk(tmp_path / "trunk", "bert")))
    made = SentenceTransformer(modules=[trunk, Pooling(32), Normalize(), last], device="cpu")
    made.save_pretrained(str(tmp_path / "model"))
    scorer = {"model": str(tmp_path / "model"), "device": "cpu"}
    make(config(tmp_path, output={"top_k": 4}, sources={"made": {"dense": {"scorer": scorer}}}))
    queries, corpus = (
        made.encode(list(texts.values()), convert_to_tensor=True) for texts in (QUERIES, PASSAGES)
    )
    expected = [hit for hits in semantic_search(queries, corpus, top_k=4) for hit in hits]
    found = rows_of(tmp_path)
    assert [row["passage_id"] for row in found] == [list(PASSAGES)[int(hit["corpus_id"])] for hit in expected]
    np.testing.assert_allclose(
        [row["first_stage_score"] for row in found], [hit["score"] for hit in expected], atol=1e-5
    )


def test_embeddings_are_a_product_and_are_reused(tmp_path: Path) -> None:
    write_texts(tmp_path, PASSAGES, QUERIES)
    make(dense(tmp_path))
    kept = pq.read_table(tmp_path / "out/embeddings/minilm/passages")
    assert kept.schema.field("embedding").type.list_size == 384
    embeddings = np.array(kept["embedding"].to_pylist(), np.float32)
    scorer = Scorer(ScorerConfig(model=MINILM, device="cpu"))
    texts = [PASSAGES[passage] for passage in kept["passage_id"].to_pylist()]
    np.testing.assert_allclose(embeddings, scorer.embed(texts, "passage"), atol=1e-6)
    assert len(pq.read_table(tmp_path / "out/embeddings/minilm/queries")) == 3

    write_texts(tmp_path, {"new": "a new one", "moved": PASSAGES["p3"], **PASSAGES}, QUERIES)
    again = dense(tmp_path, {"path": str(tmp_path / "again")})
    summary = make(again.model_copy(update={"reuse": str(tmp_path / "out")}))
    assert (summary.embedded, summary.reused) == (1, 16)
    make(dense(tmp_path, {"path": str(tmp_path / "fresh")}))
    assert [row["passage_id"] for row in rows_of(tmp_path / "again", "candidates")] == [
        row["passage_id"] for row in rows_of(tmp_path / "fresh", "candidates")
    ]
    other = dense(tmp_path, {"path": str(tmp_path / "other")}, max_length=9)
    with pytest.raises(InputError, match=r"reuse: .*minilm.dense.scorer.max_length was not given, is 9"):
        make(other.model_copy(update={"reuse": str(tmp_path / "out")}))
    with pytest.raises(InputError, match=r"reuse: .*nowhere: no finished first stage"):
        make(other.model_copy(update={"reuse": str(tmp_path / "nowhere")}))


def test_windows_and_float16(tmp_path: Path) -> None:
    long = "word " * 60 + "the panda eats bamboo"
    write_texts(tmp_path, {"long": long, "short": "a bridge"}, {"q": "the panda eats bamboo"})
    windows = {"strategy": "max", "window": 20, "stride": 10}
    make(dense(tmp_path, dtype="float16", long_passages=windows))
    kept = pq.read_table(tmp_path / "out/embeddings/minilm/passages")
    assert str(kept.schema.field("embedding").type.value_type) == "halffloat"
    assert kept["window"].to_pylist() == [*range(len(kept) - 1), 0]
    (first, second) = rows_of(tmp_path)
    make(dense(tmp_path, {"path": str(tmp_path / "cut")}, max_length=22))
    cut = {row["passage_id"]: row["first_stage_score"] for row in rows_of(tmp_path / "cut", "candidates")}
    assert (first["passage_id"], second["passage_id"]) == ("long", "short")
    assert first["first_stage_score"] > cut["long"] + 0.1
    assert second["first_stage_score"] == pytest.approx(cut["short"], abs=1e-3)


def test_texts_that_are_cut_are_counted(tmp_path: Path) -> None:
    """Also those that several shards share, each as often as it stands there."""
    long = dict.fromkeys(("a", "k", "z"), "word " * 60) | {"own": "another " * 60}
    write_texts(tmp_path, {**long, "b": "rain", "m": "", "n": " "}, {"q1": "rain " * 60, "q2": "rain"})
    summary = make(dense(tmp_path, max_length=22).model_copy(update={"shard_passages": 2}))
    assert (summary.empty_passages, summary.empty_queries, summary.embedded) == (2, 0, 9)
    (counts,) = summary.dense.values()
    assert (counts.passages_embedded, counts.passages_cut, counts.queries_embedded, counts.queries_cut) == (
        7, 4, 2, 1,
    )  # fmt: skip
    told = summary.as_text()
    assert (
        "4 of 7 embedded passages and 1 of 2 embedded queries were cut at max_length 22, of the model's 512"
        " positions (source minilm); scorer.long_passages or a larger length reads more"
    ) in told
    assert "2 passages read have an empty text: no word finds them, an embedding may" in told
    whole = make(dense(tmp_path, {"path": str(tmp_path / "whole")}))
    assert whole.dense["minilm"].lengths is None
    assert "were cut" not in whole.as_text()
    assert make(dense(tmp_path, {"path": str(tmp_path / "whole")})).dense == whole.dense


def test_equal_texts_have_one_embedding_whatever_their_shards(tmp_path: Path) -> None:
    same = {"a": "rain", "k": "rain", "z": "rain", "m": "", "n": "", "y": ""}
    others = {f"b{number}": f"the bridge over river {number} " * (1 + number % 7) for number in range(40)}
    write_texts(tmp_path, others | same, {"q1": "what falls from the sky?", "q2": "rain", "q3": "rain"})
    found = {}
    for size in (3, 7, 100):
        source = {"dense": {"scorer": {"model": MINILM, "device": "cpu"}}}
        output = {"path": str(tmp_path / str(size)), "top_k": 46}
        summary = make(config(tmp_path, sources={"minilm": source}, output=output, shard_passages=size))
        assert (summary.embedded, summary.reused) == (49, 0)
        rows = rows_of(tmp_path / str(size), "candidates")
        for query in ("q1", "q2"):
            scores = {row["passage_id"]: row["first_stage_score"] for row in rows if row["query_id"] == query}
            assert scores["a"] == scores["k"] == scores["z"]
            assert scores["m"] == scores["n"] == scores["y"]
        found[size] = [row["passage_id"] for row in rows if row["query_id"] == "q1"]
    assert found[3] == found[7] == found[100]


def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_texts(tmp_path, PASSAGES, QUERIES)
    make(dense(tmp_path))
    file = next((tmp_path / "out/embeddings/minilm/passages").iterdir())
    whole = file.read_bytes()
    table = pq.read_table(file)
    rows = table.to_pylist()
    rows[0]["embedding"][:2] = [3e38, 3e38]  # their sum is beyond float32
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    assert read_vectors(str(file)).values[0, 1] == np.float32(3e38)
    rows[1]["embedding"][7] = float("nan")
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), file)
    with pytest.raises(InputError, match=r"row 2: an embedding that is not finite; .* with --check-bytes"):
        read_vectors(str(file))
    again = dense(tmp_path, {"path": str(tmp_path / "again")})
    with pytest.raises(InputError, match=r"has \d+ bytes, and \d+ were written; run that first stage again"):
        make(again.model_copy(update={"reuse": str(tmp_path / "out")}))
    make(dense(tmp_path), check_bytes=True)
    assert file.read_bytes() == whole


def test_a_corpus_that_changed_between_embedding_and_search_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path, PASSAGES, QUERIES)
    monkeypatch.setitem(steps.STEPS, "search", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(dense(tmp_path))
    assert len(pq.read_table(tmp_path / "out/embeddings/minilm/passages")) == len(PASSAGES)
    monkeypatch.undo()
    write_texts(tmp_path, {**PASSAGES, "p3": "another"}, QUERIES)
    with pytest.raises(OutputError, match=r"(?s)earlier state of this one.*corpus.jsonl: was .*Take another"):
        make(dense(tmp_path))


def test_models_that_are_not_searched_are_refused(tmp_path: Path) -> None:
    write_texts(tmp_path, PASSAGES, QUERIES)
    with pytest.raises(ConfigError, match=r"^sources.minilm.dense.scorer.model .* it embeds no texts"):
        make(dense(tmp_path, model=TINY))
    with pytest.raises(ModelError, match="nowhere"):
        make(dense(tmp_path, model=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match="strategy mean: a search takes the best window; write max"):
        dense(tmp_path, long_passages={"strategy": "mean"})
