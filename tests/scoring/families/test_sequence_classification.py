import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.config import Limits
from tests.conftest import TINY
from tests.scoring.checkpoints import KINDS, edit, make_cross_encoder, network_of

PAIRS = [
    ("what is a panda?", "The giant panda is a bear native to China."),
    ("what is a panda?", "rerankers give one score"),
    ("a", ""),
    ("什么是大熊猫", "Ünïcödé naïve café"),
    ("query " * 5, "passage " * 12),
]


def score(path: Path | str, **options: object) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    config = ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options})
    return Scorer(config).score(PAIRS)


def fingerprint(path: Path | str, **options: object) -> str:
    return Scorer(ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options})).fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_other_cross_encoders_score_as_in_sentence_transformers(tmp_path: Path, kind: str) -> None:
    checkpoint = make_cross_encoder(tmp_path, kind)
    peer = CrossEncoder(str(checkpoint), device="cpu", max_length=128, activation_fn=torch.nn.Identity())
    expected = peer.predict(PAIRS)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(score(checkpoint), expected, atol=1e-5, rtol=0)


def test_several_labels_are_refused(tmp_path: Path) -> None:
    checkpoint = make_cross_encoder(tmp_path, "bert", num_labels=3)
    with pytest.raises(
        ModelError, match=r"head has 3 labels, a reranker has one logit.*BAAI/bge-reranker-v2-m3"
    ):
        score(checkpoint)


def test_a_model_of_no_family_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1,
        head_dim=8, intermediate_size=8,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM is of no family known here:\n  bi_encoder: .*\n"):
        score(tmp_path)


def test_more_positions_than_the_model_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"max_length 513: .* has 512 positions"):
        score(TINY, max_length=513)
    # DeBERTa-v2 has relative positions only.
    assert score(make_cross_encoder(tmp_path, "deberta-v2"), max_length=400).shape == (5,)


def test_options_of_other_families_are_refused() -> None:
    with pytest.raises(ConfigError, match="^query_instruction_for_retrieval: the family sequence_classif"):
        score(TINY, query_instruction_for_retrieval="query: ")
    with pytest.raises(
        ConfigError, match="no family 'colbert'; there are bi_encoder, flag_llm, gemma2_lightweight,"
    ):
        score(TINY, family="colbert")


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    backbone = make_cross_encoder(tmp_path, "bert")
    model = AutoModelForSequenceClassification.from_pretrained(backbone)
    model.bert.save_pretrained(backbone)
    text = (backbone / "config.json").read_text().replace('"BertModel"', '"BertForSequenceClassification"')
    (backbone / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"the weights lack classifier.bias, classifier.weight"):
        score(backbone)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "pickled")
    (tmp_path / "pickled/model.safetensors").rename(tmp_path / "pickled/pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*.safetensors in .*convert"):
        score(tmp_path / "pickled")


def test_a_float16_checkpoint_runs_in_float32(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "half", dirs_exist_ok=True)
    AutoModelForSequenceClassification.from_pretrained(TINY).half().save_pretrained(tmp_path / "half")
    scorer = Scorer(ScorerConfig(model=str(tmp_path / "half"), device="cpu"))
    np.testing.assert_allclose(scorer.score(PAIRS), score(TINY), atol=2e-2, rtol=0)
    assert {weight.dtype for weight in network_of(scorer).parameters()} == {torch.float32}


def test_an_adapter_is_merged(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(TINY)
    adapted: Any = get_peft_model(
        model, LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    )
    adapted.save_pretrained(str(tmp_path / "adapter"))
    merged: Any = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(Path(TINY) / name, tmp_path / "merged")
    with_adapter = score(TINY, peft_path=str(tmp_path / "adapter"))
    np.testing.assert_allclose(with_adapter, score(tmp_path / "merged"), atol=1e-5, rtol=0)
    assert np.abs(with_adapter - score(TINY)).max() > 1e-3
    assert fingerprint(TINY, peft_path=str(tmp_path / "adapter")).startswith(f"{fingerprint(TINY)} + sha256:")
    with pytest.raises(ModelError, match="nowhere: no such directory"):
        score(TINY, peft_path=str(tmp_path / "nowhere"))


def test_an_adapter_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(TINY)
    adapted: Any = get_peft_model(model, LoraConfig(r=4, target_modules=["query"], init_lora_weights=False))
    adapted.save_pretrained(str(tmp_path))
    weights = load_file(tmp_path / "adapter_model.safetensors")
    renamed = {name.replace("roberta", "bert"): value for name, value in weights.items()}
    save_file(renamed, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"^peft_path: .*fits no weight of the checkpoint"):
        score(TINY, peft_path=str(tmp_path))
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors in"):
        score(TINY, peft_path=str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_trunk_is_cast_and_the_head_and_computed_tables_are_not(
    tmp_path: Path, kind: str, dtype: str
) -> None:
    checkpoint = make_cross_encoder(tmp_path, kind)
    scorer = Scorer(ScorerConfig.model_validate({"model": str(checkpoint), "device": "cpu", "dtype": dtype}))
    scores = scorer.score(PAIRS)
    assert np.isfinite(scores).all()
    network = network_of(scorer)
    head = {name for name, _ in network.named_parameters() if "pooler" in name or "classifier" in name}
    head |= {
        name for name, _ in network.named_parameters() if kind == "modernbert" and name.startswith("head.")
    }
    for name, parameter in network.named_parameters():
        assert str(parameter.dtype) == ("torch.float32" if name in head else f"torch.{dtype}"), name
    assert {buffer.dtype for _, buffer in network.named_buffers() if buffer.is_floating_point()} <= {
        torch.float32
    }
    np.testing.assert_allclose(scores, score(checkpoint), atol=0.5, rtol=0.1)


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "cut")
    weights = tmp_path / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cut/model.safetensors: no safetensors file, or cut off"):
        score(tmp_path / "cut")


def test_a_rope_that_follows_the_batchs_length_is_refused(tmp_path: Path) -> None:
    """Scores of pairs below the original positions would change beside one above them."""
    path = make_cross_encoder(tmp_path, "modernbert")
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    edit(path / "config.json", rope_parameters={"full_attention": rope, "sliding_attention": rope})
    with pytest.raises(ModelError, match="rope_parameters: 'longrope' is not run here"):
        Scorer(ScorerConfig(model=str(path), device="cpu"))


def test_a_request_that_says_cut_is_cut_as_the_checkpoints_makers_do(tmp_path: Path) -> None:
    path = make_cross_encoder(tmp_path, "bert")
    edit(path / "config.json", sentence_transformers={"version": "6.2.0"})
    pair = ("what is a panda " * 20, "The giant panda is a bear native to China. " * 20)
    scorer = Scorer(ScorerConfig(model=str(path), device="cpu"))
    for length in (None, 60):
        silent, cut = (
            scorer.encode([pair], Limits(max_length=length, truncation=truncation)).sequences
            for truncation in (None, "cut")
        )
        assert silent.equals(cut)
