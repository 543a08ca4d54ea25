import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, ScoringError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.device import Device
from tests.conftest import MINILM, TINY, GoldenCase
from tests.scoring.checkpoints import make_saturated, network_of

PUBLISHED = 1e-4


def scorer(**options: object) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": TINY, "device": "cpu", **options}))


def test_dry_options_are_checked_before_anything_is_loaded() -> None:
    minicpm, gemma2 = TINY + "-v2-minicpm-layerwise", TINY + "-v2.5-gemma2-lightweight"
    with pytest.raises(ConfigError, match="no head after layer 99"):
        scorer(model=minicpm, cutoff_layers=(99,))
    with pytest.raises(ConfigError, match="no layer 99; there are 0 to 7"):
        scorer(model=gemma2, compress_layers=(99,), compress_ratio=2)
    with pytest.raises(ConfigError, match="truncation longest_first: each text is cut on its own"):
        scorer(model=MINILM, truncation="longest_first")


@cache
def loaded(checkpoint: str, options: str) -> Scorer:
    """One for all tests that change nothing about it but its budget."""
    return scorer(model=checkpoint, **json.loads(options))


def scorer_of(case: GoldenCase, max_batch_tokens: int | None = None) -> Scorer:
    """With that budget; null: the one that the device has by itself."""
    shared = loaded(case.checkpoint, json.dumps(case.options))
    device = shared.model._loop.device  # type: ignore[attr-defined]
    config = shared.config.model_copy(update={"max_batch_tokens": max_batch_tokens})
    device.max_batch_tokens = Device(config, SimpleNamespace(hidden_size=8)).max_batch_tokens
    return shared


@pytest.mark.parametrize("max_batch_tokens", [None, 1, 600, 1_000_000])
def test_scores_are_the_published_ones(golden: GoldenCase, max_batch_tokens: int | None) -> None:
    scores = scorer_of(golden, max_batch_tokens).score(golden.pairs)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, golden.scores, atol=PUBLISHED, rtol=0)


@pytest.mark.parametrize("max_batch_tokens", [None, 1, 600])
def test_edges_and_adapters_score_as_in_the_reference(
    reference: GoldenCase, max_batch_tokens: int | None
) -> None:
    scores = scorer_of(reference, max_batch_tokens).score(reference.pairs)
    np.testing.assert_allclose(scores, reference.scores, atol=PUBLISHED, rtol=0)


def test_scores_do_not_depend_on_order_or_company(golden: GoldenCase) -> None:
    model = scorer_of(golden)
    order = np.random.default_rng(0).permutation(len(golden.pairs))
    shuffled = model.score([golden.pairs[index] for index in order])
    np.testing.assert_allclose(shuffled, golden.scores[order], atol=PUBLISHED, rtol=0)
    alone = [model.score([pair])[0] for pair in golden.pairs[::4]]  # all: one to a batch, above
    np.testing.assert_allclose(alone, golden.scores[::4], atol=PUBLISHED, rtol=0)


def test_no_pairs_give_no_scores() -> None:
    assert scorer().score([]).shape == (0,)


def test_what_is_no_text_is_named() -> None:
    with pytest.raises(ScoringError, match=r"pair 1: not a \(query, passage\) pair of texts: \('a', None\)"):
        scorer().score([("a", "b"), ("a", None)])  # type: ignore[list-item]
    with pytest.raises(ScoringError, match=r"pair 0: not a \(query, passage\) pair of texts"):
        scorer().score([("a", "\ud800")])


GIVEN = [("what is panda?", "hi"), ("what is panda?", "a bear")]


@pytest.mark.parametrize(
    "given",
    [
        iter(GIVEN),
        (pair for pair in GIVEN),
        map(list, GIVEN),
        tuple(GIVEN),
        np.array(GIVEN),
        list(np.array(GIVEN)),
        pd.Series(GIVEN, index=[7, 3]),
        pd.DataFrame(GIVEN, columns=["query", "passage"]),
        pl.DataFrame(GIVEN, schema=["query", "passage"], orient="row"),
        pd.DataFrame(GIVEN).itertuples(index=False, name=None),
    ],
    ids=lambda given: f"{type(given).__module__}.{type(given).__name__}",
)
def test_pairs_may_come_in_anything_with_an_order(given: Any) -> None:
    assert scorer().score(given).tolist() == scorer().score(GIVEN).tolist()


@pytest.mark.parametrize(
    "given",
    [
        iter(["hi", "a bear"]),
        np.array(["hi", "a bear"]),
        pa.array(["hi", "a bear"]),
        pa.chunked_array([["hi"], ["a bear"]]),
        pd.Series(["hi", "a bear"], index=[7, 3]),
        pl.Series(["hi", "a bear"]),
        iter({"hi": 0, "a bear": 1}),
    ],
    ids=lambda given: f"{type(given).__module__}.{type(given).__name__}",
)
def test_passages_may_come_in_anything_with_an_order(given: Any) -> None:
    model = scorer()
    ranked = model.rank("what is panda?", given)
    assert ranked == model.rank("what is panda?", ["hi", "a bear"])
    assert {type(each.passage) for each in ranked} == {str}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("one passage", r"passages: one text, 'one passage'; write \[text\]"),
        (np.array("one passage"), r"passages: one text, 'one passage'; write \[text\]"),
        (b"bytes", "passages: a bytes; give a list"),
        ({"id": "text"}, "passages: a dict; give a list"),
        ({"text"}, "passages: a set; give a list"),
        (None, "passages: a NoneType; give a list"),
    ],
)
def test_what_is_no_list_is_refused(given: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{told}$"):
        scorer().rank("what is panda?", given)
    of_pairs = told.replace("passages", "pairs").replace("[text", r"[\(query, passage\)")
    with pytest.raises(ConfigError, match=of_pairs):
        scorer().score(given)
    with pytest.raises(ConfigError, match=of_pairs):
        scorer().encode(given)


def test_one_pair_alone_is_told_how_to_be_written() -> None:
    pair: Any = ("q", "p")
    with pytest.raises(ScoringError, match=r"^pair 0: .* 'q'; one pair alone .*, and texts .* by embed\("):
        scorer().score(pair)
    one: Any = "q"
    with pytest.raises(ConfigError, match=r"^pairs: one text, 'q'; write \[\(query, passage\)\]$"):
        scorer().score(one)


def test_a_method_of_another_library_is_told_what_it_is_here() -> None:
    for name, here in (("compute_score", "score"), ("predict", "score"), ("encode_queries", "embed")):
        with pytest.raises(AttributeError, match=rf"^a Scorer has no {name}; write {here}\("):
            getattr(scorer(), name)
    unknown = "scoer"
    with pytest.raises(AttributeError, match="'Scorer' object has no attribute 'scoer'"):
        getattr(scorer(), unknown)


def test_a_score_that_is_not_finite_is_named() -> None:
    model = scorer(normalize=False)
    head = network_of(model).classifier.out_proj
    head.bias.data.fill_(float("nan"))
    with pytest.raises(ScoringError, match="pair 0: its score is nan"):
        model.score([("a", "b")])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("model", ["-v2-gemma", "-v2.5-gemma2-lightweight"])
def test_an_infinite_score_is_not_hidden_by_what_bounds_scores(model: str, normalize: bool) -> None:
    decoder = scorer(model=TINY + model, normalize=normalize)
    decoder.model._heads.fill_(float("inf"))  # type: ignore[attr-defined]
    with pytest.raises(ScoringError, match=r"pair 0: its score is .*; are the model's weights whole\?"):
        decoder.score([("a", "b")])


def test_a_query_that_leaves_no_room_is_named_before_the_model_sees_it() -> None:
    model = scorer(query_max_length=512)
    with pytest.raises(ScoringError, match=r"pair 1: .* set query_max_length or max_length lower"):
        model.encode([("short", "passage"), ("word " * 600, "passage")])


def test_rank_orders_best_first() -> None:
    model, passages = scorer(), ["hi", "The giant panda", "a bear", ""]
    scores = model.score([("what is panda?", passage) for passage in passages])
    ranked = model.rank("what is panda?", passages)
    assert [passage.rank for passage in ranked] == [1, 2, 3, 4]
    assert [passage.index for passage in ranked] == np.argsort(-scores).tolist()
    assert all(passage.passage == passages[passage.index] for passage in ranked)
    assert model.rank("what is panda?", passages, top_k=2) == ranked[:2]


@pytest.mark.parametrize(("logit", "shown"), [(40.0, 1.0), (-150.0, 0.0)])
def test_rank_orders_by_logits_whose_sigmoids_are_equal(tmp_path: Path, logit: float, shown: float) -> None:
    model = str(make_saturated(tmp_path / "model", logit))
    passages = [f"passage {word} of the river" for word in ["north", "south", "east", "west", "up", "down"]]
    pairs = [("a river", passage) for passage in passages]
    logits = scorer(model=model).score(pairs)
    assert len(set(logits)) == len(passages)
    normalizing = scorer(model=model, normalize=True)
    assert set(normalizing.score(pairs)) == {shown}
    ranked = normalizing.rank("a river", passages)
    assert [passage.index for passage in ranked] == np.argsort(-logits, kind="stable").tolist()
    assert {passage.score for passage in ranked} == {shown}
    assert normalizing.rank("a river", passages, top_k=2) == ranked[:2]


def test_encoding_needs_no_weights() -> None:
    model = scorer()
    model.encode([("a", "b")])
    assert "model" not in vars(model)


@pytest.mark.parametrize(
    ("options", "cut"),
    [
        ({}, [False, False, True]),
        ({"max_length": 8}, [False, True, True]),
        ({"query_max_length": 2}, [False, True, True]),
    ],
)
def test_truncated_pairs_are_told(options: dict[str, int], cut: list[bool]) -> None:
    encoded = scorer(**options).encode([("a", ""), ("what is panda?", "hi"), ("a", "word " * 2000)])
    rows = encoded.pairs.to_pylist()
    assert [row["query_cut"] + row["passage_cut"] > 0 for row in rows] == cut


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_stays_near_and_keeps_the_head_in_float32(golden: GoldenCase, dtype: str) -> None:
    model = scorer(model=golden.checkpoint, **golden.options, dtype=dtype)
    np.testing.assert_allclose(model.score(golden.pairs), golden.scores, atol=0.35, rtol=0)
    if Path(golden.checkpoint).name != "tiny-bge-reranker":
        return
    network = network_of(model)
    assert {str(weight.dtype) for weight in network.classifier.parameters()} == {"torch.float32"}
    assert {str(weight.dtype) for weight in network.roberta.parameters()} == {f"torch.{dtype}"}
