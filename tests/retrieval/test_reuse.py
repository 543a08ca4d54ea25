"""Embeddings of an earlier first stage: which of its sources each source takes them from."""

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.retrieval import flow
from pipeline.retrieval.config import RetrieveConfig, scorer_field, source_of
from pipeline.retrieval.embeddings import _known
from pipeline.retrieval.summary import Summary
from tests.conftest import MINILM
from tests.retrieval.checkpoints import large_embedder
from tests.retrieval.tables import config, make, write_texts

PASSAGES = {"p1": "the panda eats bamboo", "p2": "a bridge over the river", "p3": "bread from the oven"}
QUERIES = {"q1": "what eats bamboo?", "q2": "how to bake"}
TEXTS = len(PASSAGES) + len(QUERIES)
WORDS: dict[str, Any] = {"bm25": {}}


def source(dtype: str = "float32", **options: Any) -> dict[str, Any]:
    return {"dense": {"scorer": {"model": MINILM, "device": "cpu"} | options, "dtype": dtype}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the first stage of two dense sources, `whole` and `short`, in `before`."""
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder, PASSAGES, QUERIES)
    before = {"whole": source(), "short": source(max_length=4)}
    make(config(folder, sources=before, output={"path": str(folder / "before")}))
    return folder


def job(folder: Path, output: Path, **sources: Any) -> RetrieveConfig:
    return config(folder, sources=sources, output={"path": str(output)}, reuse=str(folder / "before"))


def counts(summary: Summary) -> tuple[dict[str, int], int]:
    """(texts that each dense source embedded, texts that were taken)"""
    each = {name: it.passages_embedded + it.queries_embedded for name, it in summary.dense.items()}
    return each, summary.reused


def embeddings(output: Path, name: str) -> list[Any]:
    rows: list[Any] = pq.read_table(output / f"embeddings/{name}/passages")["embedding"].to_pylist()
    return rows


def test_a_new_source_beside_costs_the_others_nothing(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rayrank")
    sources = {
        "whole": source(),
        "half": source(dtype="float16"),
        "words": WORDS,
        "short": source(max_length=4),
    }
    told = flow.describe(job(folder, tmp_path / "out", **sources), "100")
    assert "whole      about 0 passages and 0 queries to embed, 0 tokens, 5 more taken from" in told
    assert "half       about 3 passages and 2 queries to embed" in told
    assert told.count("more taken from") == 2
    caplog.clear()
    summary = make(job(folder, tmp_path / "out", **sources))
    assert counts(summary) == ({"whole": 0, "half": TEXTS, "short": 0}, 2 * TEXTS)
    for name in ("whole", "short"):
        assert embeddings(tmp_path / "out", name) == embeddings(folder / "before", name)
    (record,) = (record for record in caplog.records if "takes no embeddings" in record.getMessage())
    assert record.levelname == "INFO"
    why = 'sources.half.dense.dtype was "float32" in its source whole, is "float16"'
    assert f"source=half why='{why}'" in record.getMessage()


def test_a_source_may_have_another_name(folder: Path, tmp_path: Path) -> None:
    # One is named as its section, and one as the other was.
    summary = make(job(folder, tmp_path / "out", dense=source(), whole=source(max_length=4)))
    assert counts(summary) == ({"dense": 0, "whole": 0}, 2 * TEXTS)
    assert embeddings(tmp_path / "out", "dense") == embeddings(folder / "before", "whole")
    assert embeddings(tmp_path / "out", "whole") == embeddings(folder / "before", "short")
    again = job(folder, tmp_path / "again", first=source(), second=source())
    again = again.model_copy(update={"reuse": str(tmp_path / "out")})
    assert counts(make(again)) == ({"first": 0, "second": 0}, 2 * TEXTS)


def test_a_source_may_be_gone(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = make(job(folder, tmp_path / "out", short=source(max_length=4)))
    assert counts(summary) == ({"short": 0}, TEXTS)
    assert "takes no embeddings" not in caplog.text


def test_a_source_that_changed_embeds_and_is_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary = make(job(folder, tmp_path / "out", whole=source(), short=source(max_length=5)))
    assert counts(summary) == ({"whole": 0, "short": TEXTS}, TEXTS)
    (record,) = (record for record in caplog.records if "takes no embeddings" in record.getMessage())
    assert record.levelname == "WARNING"
    assert "sources.short.dense.scorer.max_length was 4, is 5" in record.getMessage()


def test_a_model_is_known_by_its_weights_wherever_it_lies(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = large_embedder(tmp_path / "model", 2)
    sources = {"minilm": source(), "own": source(model=model)}
    make(config(folder, sources=sources, output={"path": str(tmp_path / "before")}))
    moved = shutil.copytree(tmp_path / "model", tmp_path / "moved")
    trained = large_embedder(tmp_path / "trained", 3)
    for name, its, expected in (("a", str(moved), 0), ("b", trained, TEXTS)):
        again = job(folder, tmp_path / name, minilm=source(), own=source(model=its))
        summary = make(again.model_copy(update={"reuse": str(tmp_path / "before")}))
        assert counts(summary) == ({"minilm": 0, "own": expected}, 2 * TEXTS - expected)
    (told,) = (message for message in caplog.messages if "takes no embeddings" in message)
    assert "sources.own.dense.scorer: the model's weights or files differ" in told


def test_where_no_source_takes_any_the_place_is_refused(folder: Path, tmp_path: Path) -> None:
    way_out = "; leave reuse out to embed every text$"
    with pytest.raises(
        InputError, match=rf"sources\.short\.dense\.scorer\.max_length was 4, is 9\){way_out}"
    ):
        make(job(folder, tmp_path / "out", short=source(max_length=9)))
    told = r"sources\.new\.dense\.scorer\.max_length was not given in its source whole, is 9\)"
    with pytest.raises(InputError, match=told + way_out):
        make(job(folder, tmp_path / "out", new=source(max_length=9)))
    make(config(folder, output={"path": str(tmp_path / "words")}))
    by_words = job(folder, tmp_path / "out", whole=source())
    with pytest.raises(InputError, match=r"words: has no embeddings, since no source of it is dense; leave"):
        make(by_words.model_copy(update={"reuse": str(tmp_path / "words")}))
    assert not (tmp_path / "out").exists()


def test_what_changed_is_not_taken_from_where_it_is_damaged(folder: Path, tmp_path: Path) -> None:
    """A night with other models is passed over, whole or not; one that would be taken must be mended."""
    before = tmp_path / "before"
    make(config(folder, sources={"whole": source()}, output={"path": str(before)}))
    next((before / "embeddings/whole/passages").iterdir()).unlink()
    changed, same = (
        job(folder, tmp_path / "out", whole=its).model_copy(update={"reuse": str(before)})
        for its in (source(max_length=9), source())
    )
    with pytest.raises(InputError, match="embeddings were made otherwise"):
        make(changed)
    with pytest.raises(InputError, match="is missing; run that first stage again"):
        make(same)


def test_a_field_and_its_source() -> None:
    assert [source_of(scorer_field(name)) for name in ("e", "dense", "sources")] == ["e", "dense", "sources"]


def test_vectors_that_are_taken_keep_no_file_in_memory(folder: Path, tmp_path: Path) -> None:
    made = job(folder, tmp_path / "made", whole=source())
    make(made)
    url = f"{folder}/before/embeddings/whole/passages"
    hashes = pa.concat_arrays([pq.read_table(file)["hash"].combine_chunks() for file in Path(url).iterdir()])
    known = _known(url, "a job", hashes)
    assert len(known) == len(hashes.unique())
    assert all(vectors.base is None for vectors in known.values())
