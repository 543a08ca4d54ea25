"""Against the code of the model card of Qwen/Qwen3-Reranker-0.6B, run on a tiny checkpoint, and against
sentence-transformers' CrossEncoder on one that it saved.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.copies import distinct
from tests.scoring.checkpoints import edit, make_qwen3
from tests.scoring.families.test_logit_score import of_the_peer, saved

PAIRS = [
    ("what is a panda?", "The giant panda is a bear native to China."),
    ("what is a panda?", "rerankers give one score"),
    ("what is a panda?", ""),
    ("", " leading blank"),
    ("什么是大熊猫", "Ünïcödé naïve café\n\n🐼"),
    ("ends with a blank ", "\nnew line first"),
    ("a panda", "a passage that is far too long " * 60),
    ("a query that is far too long " * 60, "a passage"),
]
TASK = "Given a web search query, retrieve relevant passages that answer the query"

TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the"
    ' Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    "<Instruct>: {% if messages[0].role == 'system' %}{{ messages[0].content }}{% else %}"
    f"{TASK}"
    "{% endif %}{{ '\n' }}"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n{{ '\n' }}"
)


def published(path: Path, pairs: list[tuple[str, str]], max_length: int, task: str = TASK) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path)  # from_pretrained leaves it in evaluation mode
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the"
        ' Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    before = tokenizer.encode(prefix, add_special_tokens=False)
    after = tokenizer.encode(suffix, add_special_tokens=False)
    texts = [f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {passage}" for query, passage in pairs]
    inputs = tokenizer(
        texts,
        padding=False,
        truncation="longest_first",
        return_attention_mask=False,
        max_length=max_length - len(before) - len(after),
    )
    ids = [before + text + after for text in inputs["input_ids"]]
    batch = tokenizer.pad({"input_ids": ids}, padding=True, return_tensors="pt")
    with torch.no_grad():
        last = model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits[:, -1, :]
    no, yes = (last[:, tokenizer.convert_tokens_to_ids(word)] for word in ("no", "yes"))
    return torch.nn.functional.log_softmax(torch.stack([no, yes], dim=1), dim=1)[:, 1].exp().numpy()


def scorer(path: Path, **options: Any) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options}))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("max_length", [400, 260])
def test_scores_are_those_of_the_published_code(tmp_path: Path, tied: bool, max_length: int) -> None:
    path = make_qwen3(tmp_path, tied)
    expected = published(path, PAIRS, max_length)
    assert np.ptp(expected) > 0.1
    for budget in (1, 300, 100_000):
        model = scorer(path, max_length=max_length, normalize=True, max_batch_tokens=budget)
        np.testing.assert_allclose(model.score(PAIRS), expected, atol=1e-5, rtol=0)
    odds = scorer(path, max_length=max_length).score(PAIRS)
    np.testing.assert_allclose(1 / (1 + np.exp(-odds.astype(np.float64))), expected, atol=1e-5, rtol=0)


def test_the_instruction_can_be_another(tmp_path: Path) -> None:
    path = make_qwen3(tmp_path)
    task = "Judge relevance"
    found = scorer(path, query_instruction_for_rerank=task, normalize=True).score(PAIRS[:4])
    np.testing.assert_allclose(found, published(path, PAIRS[:4], 400, task), atol=1e-5, rtol=0)


def test_candidates_of_a_query_share_what_comes_before_them(tmp_path: Path) -> None:
    path = make_qwen3(tmp_path)
    pairs = [("what is a panda?", f"passage {number} of " + "words " * number) for number in range(9)]
    together, alone = scorer(path, max_batch_tokens=100), scorer(path, max_batch_tokens=100_000)
    shared, whole = (model.forward(model.encode(pairs)) for model in (together, alone))
    assert shared.tokens < whole.tokens / 2
    np.testing.assert_allclose(shared.scores, whole.scores, atol=1e-5, rtol=0)


def test_what_is_cut_is_told(tmp_path: Path) -> None:
    path = make_qwen3(tmp_path)
    encoded = scorer(path, max_length=260).encode(PAIRS)
    assert [bool(cut) for cut in encoded.pairs["passage_cut"].to_pylist()] == [False] * 6 + [True, True]
    assert [bool(cut) for cut in encoded.pairs["query_cut"].to_pylist()] == [False] * 7 + [True]
    assert {len(ids) for ids in encoded.sequences.to_pylist()[6:]} == {260}


def test_windows_of_a_long_passage_all_follow_the_query(tmp_path: Path) -> None:
    model = scorer(make_qwen3(tmp_path), long_passages={"strategy": "max", "window": 30})
    encoded = model.encode([PAIRS[6]])
    first, *others = encoded.sequences.to_pylist()
    length = encoded.inputs["query_length"][0].as_py()
    assert len(others) > 3
    assert all(other[:length] == first[:length] for other in others)
    scored, once = model.forward(encoded), distinct(encoded)  # the text repeats itself, and so do windows
    assert scored.scores[0] == model.model.forward(once.sequences, once.inputs).scores.max()


def test_no_room_beside_the_chat_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length 20: leaves query and passage no room"):
        scorer(make_qwen3(tmp_path), max_length=20).score(PAIRS)


@pytest.mark.parametrize("settings", [{}, {"max_seq_length": 260}, {"do_lower_case": True}])
def test_scores_are_those_of_the_peer_that_saved_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = saved(tmp_path, "qwen3", TEMPLATE)
    edit(path / "sentence_bert_config.json", **settings)
    model, pairs = scorer(path), [*PAIRS[:-1], ("What is a PANDA?", "The GIANT Panda")]
    assert (model.family, model.encoder.max_length) == ("qwen3", settings.get("max_seq_length", 300))
    np.testing.assert_allclose(model.score(pairs), of_the_peer(path, pairs), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("processing_kwargs", {"text": {"max_length": 260}}), ("transformer_task", "feature-extraction")],
)
def test_what_the_peer_saved_and_is_not_honoured_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    path = saved(tmp_path, "qwen3", TEMPLATE)
    edit(path / "sentence_bert_config.json", **{name: value})
    with pytest.raises(ModelError, match=rf"sentence_bert_config.json: {name}: is not run here"):
        scorer(path)


@pytest.mark.parametrize("family", [None, "qwen3"])
def test_one_whose_pairs_the_peer_puts_in_no_chat_is_refused(tmp_path: Path, family: str | None) -> None:
    path = saved(tmp_path, "qwen3", TEMPLATE)
    text = {"method": "forward", "method_output_name": "logits"}
    edit(path / "sentence_bert_config.json", modality_config={"text": text})
    with pytest.raises(ModelError, match="has no chat template"):
        scorer(path, family=family)
    edit(path / "sentence_bert_config.json", modality_config=...)
    assert scorer(path).family == "qwen3"


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_tokenizer_that_would_cut_the_chats_beginning_is_refused(tmp_path: Path, side: str) -> None:
    path = make_qwen3(tmp_path)
    edit(path / "tokenizer_config.json", truncation_side="left")
    with pytest.raises(ModelError, match="truncation_side: is left, by which long chats .* set it to right"):
        scorer(path, truncation_side=side)
