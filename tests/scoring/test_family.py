"""Which family a checkpoint is of, and what happens where its files name two."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.scoring.checkpoints import edit, make_cross_encoder, make_qwen3
from tests.scoring.families.test_bi_encoder import bge_like

PAIRS = [("what is a panda?", "The giant panda is a bear."), ("what is a panda?", "hi"), ("a", "中国")]


def scorer(path: Path, **options: Any) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options}))


def with_modules(path: Path, *kinds: str, prefix: str = "sentence_transformers.models") -> Path:
    modules = [
        {"idx": i, "name": str(i), "path": "" if i == 0 else f"{i}_{kind}", "type": f"{prefix}.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    return path


def as_qwen3_is_published(path: Path, **logit_score: Any) -> Path:
    with_modules(make_qwen3(path), "Transformer", "LogitScore")
    words = json.loads((path / "tokenizer.json").read_text())["model"]["vocab"]
    tokens = {"true_token_id": words["yes"], "false_token_id": words["no"]} | logit_score
    (path / "1_LogitScore").mkdir()
    (path / "1_LogitScore/config.json").write_text(json.dumps(tokens))
    return path


def test_a_checkpoint_of_two_families_names_both(tmp_path: Path) -> None:
    path = bge_like(tmp_path / "bi", "mean", normalize=True)
    make_cross_encoder(path, "bert")  # its config.json tells of a classifier, its modules.json of an embedder
    with pytest.raises(ModelError, match="those of bi_encoder and of sequence_classification; set family"):
        scorer(path)
    assert scorer(path, family="bi_encoder").family == "bi_encoder"


@pytest.mark.parametrize(
    ("family", "option", "told"),
    [
        ("bi_encoder", {"query_max_length": 64}, "use max_length, which cuts queries too"),
        ("qwen3", {"query_max_length": 64}, "use max_length, which cuts queries too"),
        ("bi_encoder", {"query_instruction_for_rerank": "q"}, "use query_instruction_for_retrieval"),
        ("qwen3", {"query_instruction_for_retrieval": "q"}, "use query_instruction_for_rerank"),
    ],
)
def test_an_option_that_a_family_lacks_has_its_name_there(
    tmp_path: Path, family: str, option: dict[str, Any], told: str
) -> None:
    path = make_qwen3(tmp_path) if family == "qwen3" else bge_like(tmp_path / "bi", "cls", normalize=True)
    with pytest.raises(ConfigError, match=f"family {family} of .* has no such option; {told}; its own are"):
        scorer(path, **option)


def test_an_embedding_model_of_a_decoder_is_none_that_answers_yes(tmp_path: Path) -> None:
    path = with_modules(make_qwen3(tmp_path), "Transformer", "Pooling", "Normalize")
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "lasttoken"}))
    assert scorer(path).family == "bi_encoder"


def test_qwen3_as_published_today_scores_as_without_its_modules(tmp_path: Path) -> None:
    bare, published = make_qwen3(tmp_path / "bare"), as_qwen3_is_published(tmp_path / "published")
    assert scorer(published).family == "qwen3"
    np.testing.assert_array_equal(scorer(published).score(PAIRS), scorer(bare).score(PAIRS))


def test_a_qwen3_that_brings_code_along_is_not_taken_for_qwen3_reranker(tmp_path: Path) -> None:
    path = make_qwen3(tmp_path)
    edit(path / "config.json", auto_map={"AutoConfig": "modeling_zeranker.ZEConfig"})
    with pytest.raises(ModelError, match="Qwen3ForCausalLM is of no family known here"):
        scorer(path)
    assert scorer(path, family="qwen3").family == "qwen3"


def test_the_tokens_are_those_that_logit_score_names(tmp_path: Path) -> None:
    words = json.loads((make_qwen3(tmp_path / "bare") / "tokenizer.json").read_text())["model"]["vocab"]
    swapped = {"true_token_id": words["no"], "false_token_id": words["yes"]}
    other = scorer(as_qwen3_is_published(tmp_path / "swapped", **swapped)).score(PAIRS)
    np.testing.assert_allclose(other, -scorer(tmp_path / "bare").score(PAIRS), atol=1e-5, rtol=0)
    alone = scorer(as_qwen3_is_published(tmp_path / "alone", false_token_id=None)).score(PAIRS)
    assert np.abs(alone + other).max() > 1e-3
    with pytest.raises(ModelError, match="1_LogitScore/config.json: true_token_id: 500 is no token"):
        scorer(as_qwen3_is_published(tmp_path / "beyond", true_token_id=500))


def test_another_default_prompt_is_asked_for(tmp_path: Path) -> None:
    path = as_qwen3_is_published(tmp_path)
    settings = {
        "prompts": {"task": "Judge relevance"},
        "default_prompt_name": "task",
        "model_type": "CrossEncoder",
    }
    (path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="set query_instruction_for_rerank to 'Judge relevance'"):
        scorer(path)
    assert scorer(path, query_instruction_for_rerank="Judge relevance").family == "qwen3"


@pytest.mark.parametrize("fits", [True, False])
def test_a_chat_template_must_put_a_pair_as_published(tmp_path: Path, fits: bool) -> None:
    path = as_qwen3_is_published(tmp_path)
    message = {"method": "forward", "method_output_name": "logits", "format": "flat"}
    (path / "sentence_bert_config.json").write_text(
        json.dumps({"transformer_task": "text-generation", "modality_config": {"message": message}})
    )
    answer = "yes" if fits else "certainly"
    (path / "chat_template.jinja").write_text(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and"
        f' the Instruct provided. Note that the answer can only be "{answer}" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the"
        " query\n<Query>: {{ messages[0].content }}\n<Document>: {{ messages[1].content }}<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n{{ '\n' }}"
    )
    if fits:
        np.testing.assert_array_equal(
            scorer(path).score(PAIRS), scorer(make_qwen3(tmp_path / "bare")).score(PAIRS)
        )
    else:
        with pytest.raises(ModelError, match="its chat template puts a pair otherwise"):
            scorer(path).score(PAIRS)


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        (("Transformer", "Pooling", "WeightedLayerPooling"), "WeightedLayerPooling"),
        (("Transformer", "Pooling", "LSTM"), "LSTM"),
        (("WordEmbeddings", "Pooling"), "WordEmbeddings"),
        (("Transformer", "CNN", "Pooling"), "CNN"),
        (("Transformer", "Normalize", "Pooling"), "Normalize"),
        (("Pooling", "Transformer"), "Pooling"),
        (("Router",), "Router"),
        (("Asym", "Normalize"), "Asym"),
        (("StaticEmbedding",), "StaticEmbedding"),
        (("Transformer",), "Transformer"),
    ],
)
def test_modules_that_are_not_run_are_named(tmp_path: Path, kinds: tuple[str, ...], named: str) -> None:
    path = with_modules(bge_like(tmp_path, "mean", normalize=True), *kinds)
    with pytest.raises(ModelError, match=f"modules.json has .*{named}"):
        scorer(path)


@pytest.mark.parametrize("prefix", ["custom_st", "transformers", "sentence_transformers_own"])
def test_a_modules_own_code_is_not_run(tmp_path: Path, prefix: str) -> None:
    path = with_modules(bge_like(tmp_path, "mean", normalize=True), "Transformer", "Pooling", prefix=prefix)
    with pytest.raises(
        ModelError, match=f"modules.json: {prefix}.Transformer is code of the checkpoint's own"
    ):
        scorer(path)


def test_a_cross_encoder_with_a_dense_head_is_refused(tmp_path: Path) -> None:
    path = with_modules(make_cross_encoder(tmp_path, "bert"), "Transformer", "Dense")
    (path / "config_sentence_transformers.json").write_text(json.dumps({"model_type": "CrossEncoder"}))
    with pytest.raises(ModelError, match="modules.json: names Transformer, Dense"):
        scorer(path)
