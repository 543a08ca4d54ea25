"""Encoded pairs taken apart and put together, as the online batches do."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import ConfigError, ModelError, ScoringError
from pipeline.scoring import Limits, Scorer, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs, pairs_of
from tests.conftest import DATA, MINILM, TINY
from tests.scoring.checkpoints import edit
from tests.scoring.families.test_bi_encoder import bge_like

PAIRS = [
    ("what is a panda?", "The giant panda is a bear."),
    ("what is a panda?", "hi"),
    ("how do vaccines work?", ""),
    ("what is a panda?", "The giant panda is a bear. " * 30),
    ("how do vaccines work?", "They train the immune system."),
]
WINDOWS = {"long_passages": {"strategy": "max", "window": 20}, "max_length": 64}
MODELS: list[tuple[str, dict[str, Any]]] = [
    (TINY, {}),
    (TINY, WINDOWS),
    (str(DATA / "tiny-bge-reranker-v2-gemma"), {}),
    (str(DATA / "tiny-bge-reranker-v2-minicpm-layerwise"), {"cutoff_layers": [3, 5]} | WINDOWS),
    (MINILM, {}),
    (MINILM, WINDOWS),
]


@pytest.fixture(params=MODELS, ids=lambda case: f"{case[0][-12:]}-{len(case[1])}")
def scorer(request: pytest.FixtureRequest) -> Scorer:
    model, options = request.param
    return Scorer(ScorerConfig.model_validate({"model": model, "device": "cpu", **options}))


def test_parts_score_as_the_whole(scorer: Scorer) -> None:
    whole = scorer.encode(PAIRS)
    expected = scorer.forward(whole).scores
    order = np.array([3, 0, 4])
    np.testing.assert_allclose(scorer.forward(whole.take(order)).scores, expected[order], atol=1e-5)
    parts = [scorer.encode(PAIRS[2:]), whole.take(np.array([1, 0]))]
    joined = scorer.forward(EncodedPairs.concat(parts))
    np.testing.assert_allclose(joined.scores, expected[[2, 3, 4, 1, 0]], atol=1e-5)
    assert len(whole.take(np.zeros(0, np.int64))) == 0


def test_tokens_are_those_that_the_pairs_of_a_part_read(scorer: Scorer) -> None:
    whole = scorer.encode(PAIRS)
    alone = [int(scorer.encode([pair]).tokens.sum()) for pair in PAIRS]
    assert whole.tokens.tolist() == alone
    assert whole.take(np.array([4, 3])).tokens.tolist() == [alone[4], alone[3]]


def test_one_call_may_set_limits_of_its_own() -> None:
    scorer = Scorer(ScorerConfig(model=TINY, device="cpu"))
    short = Scorer(ScorerConfig(model=TINY, device="cpu", max_length=32, truncation="longest_first"))
    limits = Limits(max_length=32, truncation="longest_first")
    assert scorer.encode(PAIRS, limits).sequences == short.encode(PAIRS).sequences
    assert scorer.encode(PAIRS, limits).sequences != scorer.encode(PAIRS).sequences
    with pytest.raises(ScoringError, match="don't fit"):
        scorer.encode(PAIRS, Limits(max_length=32, truncation="error"))
    with pytest.raises(ModelError, match="positions"):
        scorer.encode(PAIRS, Limits(max_length=100_000))
    with pytest.raises(ConfigError, match="longest_first"):
        Scorer(ScorerConfig(model=MINILM)).encode(PAIRS, Limits(truncation="longest_first"))


def test_the_characters_read_are_told(scorer: Scorer) -> None:
    """What is read ends, or with the left side begins, where the text that alone fits does."""
    passage = "Pandas eat bamboo, 竹子, all day. 🐼 " * 40
    pair = ("what do pandas eat?", passage)
    sides: tuple[Literal["left", "right"], ...] = ("right", "left")
    for side in sides:
        limits = Limits(truncation_side=side, passage_max_length=25)
        encoded = scorer.encode([pair], limits)
        ((first, last),) = scorer.spans_read([pair], encoded)
        cut = encoded.pairs["passage_cut"][0].as_py()
        assert cut > 0
        assert (first == 0) == (side == "right")
        assert (last == len(passage.rstrip())) == (side == "left") or last == len(passage)
        assert 0 < last - first < 150
    whole = scorer.encode([("q", "short")])
    assert scorer.spans_read([("q", "short")], whole) == [(0, 5)]


TEXT = " ".join(f"word{number} alpha beta" for number in range(60))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (TINY, {}),
        (TINY, {"passage_instruction_for_rerank": "word0 alpha: "}),
        (str(DATA / "tiny-bge-reranker-v2-gemma"), {}),
        (
            str(DATA / "tiny-bge-reranker-v2.5-gemma2-lightweight"),
            {"passage_instruction_for_rerank": "word1 "},
        ),
        ("with a prompt", {}),
    ],
)
def test_the_characters_read_are_those_without_which_nothing_changes(
    tmp_path: Path, model: str, options: dict[str, Any]
) -> None:
    if model == "with a prompt":
        model = str(tmp_path)
        shutil.copytree(Scorer(ScorerConfig(model=MINILM)).checkpoint.path, model, dirs_exist_ok=True)
        file = tmp_path / "config_sentence_transformers.json"
        prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
        file.write_text(json.dumps(json.loads(file.read_text()) | prompts))
    scorer = Scorer(ScorerConfig(model=model, device="cpu", max_length=40, **options))
    encoded = scorer.encode([("q", TEXT)])
    ((first, last),) = scorer.spans_read([("q", TEXT)], encoded)
    assert (first, encoded.pairs["passage_cut"][0].as_py() > 0) == (0, True)
    alone = scorer.encode([("q", TEXT[:last])])
    assert (alone.sequences, alone.pairs["passage_cut"][0].as_py()) == (encoded.sequences, 0)
    assert scorer.encode([("q", TEXT[: last - 1])]).sequences != encoded.sequences


def test_no_character_is_read_where_an_instruction_takes_all_the_room() -> None:
    instruction: Any = {"passage_instruction_for_rerank": "one two three four five six seven eight nine ten"}
    scorer = Scorer(ScorerConfig(model=TINY, device="cpu", max_length=12, **instruction))
    assert scorer.spans_read([("q", TEXT)], scorer.encode([("q", TEXT)])) == [(0, 0)]
    behind: Any = {"passage_instruction_for_rerank": "alpha", "passage_instruction_format": "{1} {0}"}
    scorer = Scorer(ScorerConfig(model=TINY, device="cpu", max_length=24, truncation_side="left", **behind))
    ((first, last),) = scorer.spans_read([("q", TEXT)], scorer.encode([("q", TEXT)]))
    assert 0 < first < last == len(TEXT)


def test_a_table_of_arrow_gives_its_rows() -> None:
    table = pa.table({"query": ["a", "b"], "passage": ["c", "d"]})
    for given in (table, table.to_batches()[0], table.to_pandas()):
        assert [tuple(pair) for pair in pairs_of(given)] == [("a", "c"), ("b", "d")]


def test_a_lower_cased_tokenizer_is_made_once_for_all_limits(tmp_path: Path) -> None:
    """A client may ask for any number of them, and a copy takes megabytes."""
    path = bge_like(tmp_path, "cls", normalize=True)
    edit(path / "sentence_bert_config.json", do_lower_case=True)
    scorer = Scorer(ScorerConfig(model=str(path), device="cpu"))
    tokenizers = {
        id(cast("Any", scorer._limited(Limits(passage_max_length=n)))._tokenizer) for n in range(1, 9)
    }
    assert tokenizers == {id(cast("Any", scorer.encoder)._tokenizer)}
    assert scorer.checkpoint.tokenizer is not cast("Any", scorer.encoder)._tokenizer
