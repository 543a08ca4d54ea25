"""Against FlagEmbedding's way with any causal model (1.4.2, inference/reranker/decoder_only/base.py)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.errors import ModelError
from pipeline.finetuning import flow
from pipeline.scoring import Scorer, ScorerConfig
from tests.finetuning.rows import config as training
from tests.scoring.checkpoints import edit, make_chatty

PAIRS = [
    ("what is a panda?", "The giant panda is a bear native to China."),
    ("what is a panda?", "rerankers give one score"),
    ("what is a panda?", ""),
    ("", " leading blank"),
    ("什么是大熊猫", "Ünïcödé naïve café\n\n🐼"),
    ("a panda", "a passage that is far too long " * 60),
    ("a query that is far too long " * 60, "a passage that is far too long " * 60),
]
PROMPT = (
    "Given a query A and a passage B, determine whether the passage contains an answer to the query by"
    " providing a prediction of either 'Yes' or 'No'."
)


def made(path: Path, kind: str, bos: str | None = None) -> Path:
    window = {"sliding_window": None} if kind == "mistral" else {}
    make_chatty(path, kind, max_position_embeddings=900, **window)
    edit(path / "tokenizer_config.json", bos_token=bos)
    return path


def scorer(path: Path, **options: Any) -> Scorer:
    given = {"model": str(path), "device": "cpu", "family": "flag_llm", **options}
    return Scorer(ScorerConfig.model_validate(given))


def published(path: Path, pairs: list[tuple[str, str]], max_length: int = 512) -> Any:
    """As compute_score_single_gpu there, one pair at a time. `only_second` cuts nothing where all of the
    passage, with its separator, would have to go.
    """
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)

    def ids(text: str, **options: Any) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, **options)["input_ids"])

    separator, prompt, yes = ids("\n"), ids(PROMPT), ids("Yes")[0]
    begins = tokenizer.bos_token_id is not None and tokenizer.bos_token_id != tokenizer.pad_token_id
    scores = []
    for query, passage in pairs:
        first = ids(f"A: {query}", max_length=max_length * 3 // 4, truncation=True)
        first = [tokenizer.bos_token_id] * begins + first
        second = separator + ids(f"B: {passage}", max_length=max_length, truncation=True)
        excess = len(first) + len(second) - (max_length + len(separator) + len(prompt))
        if 0 < excess < len(second):
            second = second[:-excess]
        with torch.no_grad():
            logits = model(torch.tensor([first + second + separator + prompt])).logits
        scores.append(float(logits[0, -1, yes]))
    return np.array(scores, np.float32)


@pytest.mark.parametrize(
    ("kind", "bos"),
    [
        ("qwen2", None),
        ("llama", "<|im_start|>"),
        ("mistral", "<|im_start|>"),
        ("qwen3", None),
        ("gemma", None),
    ],
)
def test_scores_are_flag_embeddings(tmp_path: Path, kind: str, bos: str | None) -> None:
    path = made(tmp_path, kind, bos)
    for max_length in (512, 100):
        expected = published(path, PAIRS, max_length)
        assert np.ptp(expected) > 0.1
        for budget in (1, 300, 100_000):
            model = scorer(path, max_length=max_length, max_batch_tokens=budget)
            np.testing.assert_allclose(model.score(PAIRS), expected, atol=1e-5, rtol=1e-5)


def test_a_language_model_is_not_taken_for_one(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"LlamaForCausalLM is of no family known here(.|\n)*where family names it, any"
    ):
        Scorer(ScorerConfig(model=str(made(tmp_path, "llama")), device="cpu"))


def test_what_is_no_plain_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="model_type: gemma2 is not run here, gemma, llama, mistral, qwen2, q"
    ):
        scorer(made(tmp_path / "gemma2", "gemma2"))
    edit(made(tmp_path, "mistral") / "config.json", sliding_window=4096)
    with pytest.raises(ModelError, match="sliding_window: 4096 is not run here"):
        scorer(tmp_path)


@pytest.mark.parametrize("lora", [False, True])
def test_any_language_model_is_trained_as_one(tmp_path: Path, lora: bool) -> None:
    base = made(tmp_path / "base", "llama", "<|im_start|>")
    model = {"model": str(base), "device": "cpu", "family": "flag_llm"}
    flow.run(training(tmp_path, scorer=model, training={"use_lora": lora, "max_steps": 2}))
    trained = tmp_path / "out/model"
    np.testing.assert_allclose(scorer(trained).score(PAIRS), published(trained, PAIRS), atol=1e-5, rtol=1e-5)
    assert np.abs(scorer(trained).score(PAIRS) - scorer(base).score(PAIRS)).max() > 1e-3
