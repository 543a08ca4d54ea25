"""What config.json says: scored as transformers and sentence-transformers score that folder, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import DATA
from tests.scoring.checkpoints import (
    KINDS,
    byte_level,
    copied,
    edit,
    make_cross_encoder,
    make_qwen3,
    unigram,
    wordpiece,
)
from tests.scoring.references import (
    GEMMA,
    GEMMA2,
    MINICPM,
    PAIRS,
    Scores,
    classifier,
    cross_encoder,
    ours,
    same_or_refused,
)

__all__ = ["classifier"]  # fixtures


@pytest.mark.parametrize(
    "fields",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0"}},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.ReLU"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
        {"sbert_ce_default_activation_function": "own.Activation"},
        {"problem_type": "regression"},
        {"attn_implementation": "eager"},
        {"is_decoder": True},
        {"output_attentions": True},
        {"return_dict": False},
        {"output_hidden_states": True},
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"attn_implementation": "flash_attention_2"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"transformers_weights": "pytorch_model.safetensors"},
        {"torch_dtype": "bfloat16"},
        {"num_labels": 2},
        {"id2label": {"0": "no", "1": "yes"}},
        {"id2label": None, "label2id": None},
        {"hidden_act": "gelu_new"},
        {"layer_norm_eps": 0.1},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3},
        {"position_embedding_type": "relative_key"},
        {"hidden_size": "32"},
        {"hidden_size": -32},
        {"num_attention_heads": 5},
        {"vocab_size": 20},
        {"max_position_embeddings": "130"},
        {"max_position_embeddings": -1},
        {"architectures": "BertForSequenceClassification"},
        {"architectures": [None]},
        {"model_type": 3},
        {"model_type": "no-such-type"},
        {"pad_token_id": 10_000},
        {"auto_map": {"AutoModelForSequenceClassification": "modeling.Own"}, "model_type": "own"},
    ],
    ids=str,
)
def test_what_config_json_says(classifier: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    path = copied(classifier, tmp_path)
    edit(path / "config.json", **fields)
    same_or_refused(path, cross_encoder, *fields, str(path))


@pytest.mark.parametrize(
    "names", [[], ..., ["TFBertForSequenceClassification"], ["FlaxBertForSequenceClassification"]]
)
def test_a_class_that_is_not_named_is_that_of_the_model_type(
    classifier: Path, tmp_path: Path, names: Any
) -> None:
    path = copied(classifier, tmp_path)
    edit(path / "config.json", architectures=names)
    scores = ours(path, family="sequence_classification")
    np.testing.assert_allclose(scores, ours(classifier))
    edit(path / "config.json", architectures=["OwnForSequenceClassification"])
    with pytest.raises(ModelError, match="OwnForSequenceClassification is code of the checkpoint's own"):
        ours(path)


DECODER = [
    {},
    {"attn_implementation": "eager"},
    {"output_attentions": True},
    {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    {"layer_types": ["sliding_attention", "full_attention", "full_attention"], "sliding_window": 4},
    {"use_bidirectional_attention": True},
    {"is_causal": False},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    {"rope_theta": 50.0},
    {"rms_norm_eps": 0.5},
    {"hidden_act": "relu"},
    {"head_dim": 16},
    {"tie_word_embeddings": True},
    {"num_hidden_layers": 2},
    {"quantization_config": {"quant_method": "awq"}},
]


def of_the_language_model(path: Path) -> Scores:
    """The logits of the two tokens, by transformers' own forward of the sequences that we encode."""
    scorer = Scorer(ScorerConfig(model=str(path), device="cpu"))
    network = AutoModelForCausalLM.from_pretrained(path)  # in evaluation mode
    yes, no = (scorer.checkpoint.tokenizer.token_to_id(word) for word in ("yes", "no"))
    scores = []
    with torch.inference_mode():
        for ids in scorer.encode(PAIRS).sequences.to_pylist():
            logits = network(input_ids=torch.tensor([ids])).logits[0, -1]
            scores.append(float(logits[yes] - logits[no]))
    return np.array(scores, np.float32)


@pytest.mark.parametrize("fields", DECODER, ids=str)
def test_what_a_decoders_config_says(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = make_qwen3(tmp_path)
    edit(path / "config.json", **fields)
    same_or_refused(path, of_the_language_model, *fields, "lm_head", str(path))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (MINICPM, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        (MINICPM, {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}}),
        (MINICPM, {"head_type": "raw"}),
        (MINICPM, {"scale_depth": ...}),
        (MINICPM, {"scale_emb": "12"}),
        (MINICPM, {"start_layer": ...}),
        (MINICPM, {"start_layer": 7}),
        (MINICPM, {"num_hidden_layers": "6"}),
        (MINICPM, {"num_attention_heads": "4"}),
        (GEMMA2, {"final_logit_softcapping": None}),
        (GEMMA2, {"final_logit_softcapping": 0.0}),
        (GEMMA2, {"layer_sep": 0}),
        (GEMMA2, {"head_dim": "16"}),
        (GEMMA2, {"rope_theta": "1e4"}),
        (GEMMA, {"use_bidirectional_attention": True}),
        (GEMMA, {"hidden_size": "64"}),
    ],
    ids=str,
)
def test_what_is_not_run_of_the_published_decoders_is_named(
    tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    path = copied(DATA / name, tmp_path)
    edit(path / "config.json", **fields)
    with pytest.raises(ModelError, match=f"config.json: .*{next(iter(fields))}"):
        Scorer(ScorerConfig(model=str(path)))


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("tiny-bge-reranker", 6),  # four special tokens, one of the query, one of the passage
        (GEMMA, 4),  # `B: ` and a token; three quarters of it are the query's
        (MINICPM, 4),
        (GEMMA2, 4),
    ],
    ids=str,
)
def test_a_length_at_which_nothing_would_be_read_is_refused(name: str, least: int) -> None:
    def encode(length: int) -> Any:
        scorer = Scorer(ScorerConfig(model=str(DATA / name), max_length=length))
        return scorer.encode([("panda " * 9, "bear " * 9)])

    encode(least)
    with pytest.raises(ConfigError, match=f"max_length {least - 1}: leaves query and passage no room"):
        encode(least - 1)


UNFIT = {
    "fnet": (unigram, {"type_vocab_size": 2}, "depends on the batch"),
    "nystromformer": (wordpiece, {"type_vocab_size": 2}, "depends on the batch"),
    "convbert": (wordpiece, {"type_vocab_size": 2, "embedding_size": 32}, "depends on the batch"),
    "qwen3": (byte_level, {"num_key_value_heads": 2, "head_dim": 8}, "no padding token is defined"),
    "roberta": (byte_level, {"type_vocab_size": 1}, "scores no pair: "),
}
"""Classifiers that score no batch as transformers scores its pairs, without a padding token or with one."""


@pytest.mark.parametrize("kind", UNFIT)
def test_a_network_that_scores_no_batch_is_the_models_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tokenizer, options, message = UNFIT[kind]
    monkeypatch.setitem(KINDS, kind, (tokenizer, options))
    path = make_cross_encoder(tmp_path, kind)
    if "batch" not in message:
        edit(path / "config.json", pad_token_id=None)
    with pytest.raises(ModelError, match=message) as caught:
        ours(path)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_none_is_told_what_to_write(classifier: Path) -> None:
    unchecked: Any = Scorer  # a checker of types would tell, too
    with pytest.raises(ConfigError, match=r"write Scorer\(ScorerConfig\(model='.*'\)\)"):
        unchecked(str(classifier))
