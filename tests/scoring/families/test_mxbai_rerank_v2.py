"""Against the code of the package mxbai_rerank 0.1.6 (mxbai_rerank_v2.py), on a tiny checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.scoring.checkpoints import edit, make_chatty
from tests.scoring.families.test_logit_score import LIKE_MXBAI, saved

PAIRS = [
    ("what is a panda?", "The giant panda is a bear native to China."),
    ("what is a panda?", "rerankers give one score"),
    ("what is a panda?", ""),
    ("", " leading blank"),
    ("什么是大熊猫", "Ünïcödé naïve café\n\n🐼"),
    ("a line and its end\n", "\na line and its end\n"),
    ("a panda", "a passage that is far too long " * 60),
    ("a query that is far too long " * 60, "a passage that is far too long " * 60),
]
TASK = (
    "You are a search relevance expert who evaluates how well documents match search queries. For each"
    " query-document pair, carefully analyze the semantic relationship between them, then provide your binary"
    " relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
)


def published(
    path: Path, pairs: list[tuple[str, str]], max_length: int, instruction: str | None = None
) -> Any:
    """As prepare_inputs and forward there, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)  # from_pretrained leaves it in evaluation mode

    def ids(text: str, **options: Any) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, **options)["input_ids"])

    prefix = (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n"
    )
    before, separator = ids(prefix), ids("\n")
    after = separator + ids(TASK) + ids("<|im_end|>\n<|im_start|>assistant\n")
    predefined = len(before) + len(after)
    max_length = min(max_length, model.config.max_position_embeddings - predefined)
    yes, no = ids("1")[0], ids("0")[0]
    scores = []
    for query, passage in pairs:
        told = f"query: {query}"
        if instruction is not None:
            told = f"instruction: {instruction}\n{told}"
        first = ids(told, max_length=max_length * 3 // 4, truncation=True)
        available = model.config.max_position_embeddings - len(first) - predefined
        second = ids(f"document: {passage}", max_length=min(available, max_length), truncation=True)
        texts = first + (separator + second)[: max(0, max_length - len(first))]
        with torch.no_grad():
            logits = model(torch.tensor([before + texts + after])).logits[0, -1]
        scores.append(float(logits[yes] - logits[no]))
    return np.array(scores, np.float32)


def made(path: Path) -> Path:
    return make_chatty(path, "qwen2", max_position_embeddings=600)


def scorer(path: Path, **options: Any) -> Scorer:
    given = {"model": str(path), "device": "cpu", "family": "mxbai_rerank_v2", **options}
    return Scorer(ScorerConfig.model_validate(given))


@pytest.mark.parametrize("max_length", [None, 60, 100])
def test_scores_are_those_of_the_published_code(tmp_path: Path, max_length: int | None) -> None:
    path = made(tmp_path)
    expected = published(path, PAIRS, max_length or 8192)
    assert np.ptp(expected) > 0.1
    for budget in (1, 300, 100_000):
        model = scorer(path, max_length=max_length, max_batch_tokens=budget)
        np.testing.assert_allclose(model.score(PAIRS), expected, atol=1e-5, rtol=1e-5)


def test_an_instruction_stands_before_the_query(tmp_path: Path) -> None:
    path = made(tmp_path)
    instruction = "instruction: Judge it\nquery: "
    found = scorer(path, query_instruction_for_rerank=instruction).score(PAIRS)
    expected = published(path, PAIRS, 8192, "Judge it")
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_what_is_cut_is_told(tmp_path: Path) -> None:
    encoded = scorer(made(tmp_path), max_length=60).encode(PAIRS)
    assert [bool(cut) for cut in encoded.pairs["passage_cut"].to_pylist()] == [False] * 6 + [True, True]
    assert [bool(cut) for cut in encoded.pairs["query_cut"].to_pylist()] == [False] * 7 + [True]


def test_a_model_that_chats_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Qwen2ForCausalLM is of no family known here"):
        scorer(made(tmp_path), family=None)


def test_other_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="names Transformer, LogitScore: leave family away"):
        scorer(saved(tmp_path, "qwen2", LIKE_MXBAI))
    path = made(tmp_path / "other")
    edit(path / "config.json", architectures=["Qwen3ForCausalLM"])
    with pytest.raises(ModelError, match="architectures: mxbai_rerank_v2 runs Qwen2ForCausalLM alone"):
        scorer(path)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_tokenizer_that_cuts_on_the_left_is_refused(tmp_path: Path, side: str) -> None:
    """The package cuts query and passage there, and then both together on the right."""
    path = made(tmp_path)
    edit(path / "tokenizer_config.json", truncation_side="left")
    with pytest.raises(ModelError, match="truncation_side: is left, .* set it to right"):
        scorer(path, truncation_side=side)
