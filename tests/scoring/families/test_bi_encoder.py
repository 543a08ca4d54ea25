import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import MINILM
from tests.scoring.checkpoints import make_trunk

QUERIES = ["what is a panda?", "什么是大熊猫", "", "  spaces  ", "query " * 300]
PASSAGES = ["The giant panda is a bear.", "大熊猫是中国特有的熊科动物。", "x", "", "long passage, cut " * 400]
PAIRS = [(query, passage) for query in QUERIES for passage in PASSAGES]
AGREES = 1e-5


def scorer(model: Path | str, **options: object) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": str(model), "device": "cpu", **options}))


def expected(
    peer: SentenceTransformer, instruction: str = ""
) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    queries = peer.encode([instruction + query for query in QUERIES])
    return np.asarray(peer.similarity(queries, peer.encode(PASSAGES)).ravel())


@pytest.mark.parametrize("max_batch_tokens", [None, 1, 100_000])
def test_minilm_agrees_with_sentence_transformers(max_batch_tokens: int | None) -> None:
    ours = scorer(MINILM, max_batch_tokens=max_batch_tokens)
    np.testing.assert_allclose(ours.score(PAIRS), minilm(ours.checkpoint.path), atol=AGREES, rtol=0)


@cache
def minilm(path: Path) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    return expected(SentenceTransformer(str(path), device="cpu"))


def bge_like(path: Path, pooling: dict[str, bool] | str, normalize: bool) -> Path:
    """The layout of the BGE embedding models: modules.json, 1_Pooling, perhaps 2_Normalize."""
    make_trunk(path, "bert")
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")] + [("2_Normalize", "Normalize")] * normalize
    types = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for i, (place, kind) in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(types))
    (path / "1_Pooling").mkdir()
    (path / "2_Normalize").mkdir()
    settings = {"pooling_mode": pooling} if isinstance(pooling, str) else pooling
    (path / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, **settings}))
    (path / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 64, "do_lower_case": False})
    )
    return path


@pytest.mark.parametrize(
    ("pooling", "normalize"),
    [
        ({"pooling_mode_cls_token": True}, True),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, False),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_sqrt_len_tokens": True}, True),
        ("weightedmean", True),
        ("lasttoken", False),
    ],
)
def test_pooling_is_the_checkpoints(tmp_path: Path, pooling: dict[str, bool] | str, normalize: bool) -> None:
    checkpoint = bge_like(tmp_path, pooling, normalize)
    peer = expected(SentenceTransformer(str(checkpoint), device="cpu"))
    np.testing.assert_allclose(scorer(checkpoint).score(PAIRS), peer, atol=AGREES, rtol=AGREES)


def test_the_query_instruction_goes_before_queries_only(tmp_path: Path) -> None:
    checkpoint = bge_like(tmp_path, {"pooling_mode_cls_token": True}, normalize=True)
    instruction = "Represent this sentence: "
    ours = scorer(checkpoint, query_instruction_for_retrieval=instruction).score(PAIRS)
    peer = expected(SentenceTransformer(str(checkpoint), device="cpu"), instruction)
    np.testing.assert_allclose(ours, peer, atol=AGREES, rtol=0)


def test_each_distinct_text_is_embedded_once() -> None:
    encoded = scorer(MINILM).encode([("a", "b"), ("a", "c"), ("b", "a")])
    assert len(encoded.sequences) == 3
    assert len(encoded) == 3


def test_truncated_texts_are_told() -> None:
    encoded = scorer(MINILM, max_length=8).encode([("a", "b"), ("a", "word " * 9), ("word " * 9, "b")])
    rows = encoded.pairs.to_pylist()
    assert [(row["query_cut"] > 0, row["passage_cut"] > 0) for row in rows] == [
        (False, False),
        (False, True),
        (True, False),
    ]


def test_a_plain_trunk_runs_where_the_family_is_named(tmp_path: Path) -> None:
    checkpoint = make_trunk(tmp_path, "xlm-roberta")
    with pytest.raises(ModelError, match="set family"):
        scorer(checkpoint)
    scores = scorer(checkpoint, family="bi_encoder", max_length=64).score([("same", "same")])
    np.testing.assert_allclose(scores, [1.0], atol=AGREES)  # CLS, normalized: as BGE


def test_modules_that_are_not_run_are_refused(tmp_path: Path) -> None:
    checkpoint = bge_like(tmp_path, "mean", normalize=True)
    text = (checkpoint / "modules.json").read_text().replace("models.Normalize", "models.BoW")
    (checkpoint / "modules.json").write_text(text)
    with pytest.raises(ModelError, match="modules.json has BoW; bi_encoder runs a Transformer, a Pooling"):
        scorer(checkpoint).score(PAIRS)


def test_no_pairs_give_no_scores() -> None:
    assert scorer(MINILM).score([]).shape == (0,)
