"""Alibaba's GTE models with the files that they were published with, against their code's formulas."""

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import embedding, gelu, layer_norm, linear

from pipeline.errors import ModelError
from pipeline.finetuning import flow
from pipeline.finetuning.start import put_head
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.family import EmbeddingEncoder
from tests.finetuning.rows import config as training
from tests.scoring.checkpoints import CORPUS, as_saved, edit, unigram

WIDTH, HEADS, INNER, LAYERS = 32, 4, 48, 3
CONFIG: dict[str, Any] = {
    "architectures": ["NewForSequenceClassification"],
    "attention_probs_dropout_prob": 0.0,
    "auto_map": {
        "AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
        "AutoModelForSequenceClassification": "Alibaba-NLP/new-impl--modeling.NewForSequenceClassification",
    },
    "classifier_dropout": 0.0,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": WIDTH,
    "id2label": {"0": "LABEL_0"},
    "initializer_range": 0.02,
    "intermediate_size": INNER,
    "label2id": {"LABEL_0": 0},
    "layer_norm_eps": 1e-12,
    "layer_norm_type": "layer_norm",
    "logn_attention_clip1": False,
    "logn_attention_scale": False,
    "max_position_embeddings": 512,
    "model_type": "new",
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pack_qkv": True,
    "pad_token_id": 0,
    "position_embedding_type": "rope",
    "rope_scaling": {"factor": 8.0, "type": "ntk"},
    "rope_theta": 200,
    "torch_dtype": "float16",
    "transformers_version": "4.39.1",
    "type_vocab_size": 1,
    "unpad_inputs": False,
    "use_memory_efficient_attention": False,
}
"""As gte-multilingual-reranker-base's, but for sizes."""
PAIRS = [("what is a panda", text) for text in ["hi", *CORPUS[:3], " ".join(CORPUS) * 4]]
Weights = dict[str, torch.Tensor]


def make(path: Path, **config: Any) -> Path:
    tokenizer = as_saved(unigram(), 512)
    tokenizer.save_pretrained(path)
    settings = {**CONFIG, "vocab_size": len(tokenizer), **config}
    edit(path / "config.json", **settings)
    shapes: dict[str, tuple[int, ...]] = {"new.embeddings.word_embeddings.weight": (len(tokenizer), WIDTH)}
    if settings["type_vocab_size"]:
        shapes["new.embeddings.token_type_embeddings.weight"] = (settings["type_vocab_size"], WIDTH)
    linears, norms = (
        {"new.pooler.dense": (WIDTH, WIDTH), "classifier": (1, WIDTH)},
        ["new.embeddings.LayerNorm"],
    )
    for layer in (f"new.encoder.layer.{number}" for number in range(LAYERS)):
        linears |= {
            f"{layer}.attention.qkv_proj": (3 * WIDTH, WIDTH),
            f"{layer}.attention.o_proj": (WIDTH, WIDTH),
            f"{layer}.mlp.down_proj": (WIDTH, INNER),
        }
        shapes[f"{layer}.mlp.up_gate_proj.weight"] = (2 * INNER, WIDTH)
        norms += [f"{layer}.attn_ln", f"{layer}.mlp_ln"]
    shapes |= {f"{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    shapes |= {f"{name}.{part}": (WIDTH,) for name in norms for part in ("weight", "bias")}
    torch.manual_seed(0)
    weights = {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}
    weights |= {
        name: 1 + weight for name, weight in weights.items() if "LayerNorm.w" in name or "_ln.w" in name
    }
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return path


def dense(hidden: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    return linear(hidden, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def logit(weights: Weights, config: dict[str, Any], ids: list[int]) -> float:
    weights = {name: weight.double() for name, weight in weights.items()}
    pooled = dense(states(weights, config, ids)[0], weights, "new.pooler.dense").tanh()
    return float(dense(pooled, weights, "classifier"))


def states(weights: Weights, config: dict[str, Any], ids: list[int]) -> torch.Tensor:
    """Of one sequence, (tokens, width), as modeling.py of Alibaba-NLP/new-impl computes them; in float64."""
    weights = {name: weight.double() for name, weight in weights.items()}

    def norm(hidden: torch.Tensor, name: str) -> torch.Tensor:
        return layer_norm(hidden, (WIDTH,), weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-12)

    def turned(states: torch.Tensor) -> torch.Tensor:
        first, second = states.chunk(2, -1)
        return states * angles.cos() + torch.cat((-second, first), -1) * angles.sin()

    dim = WIDTH // HEADS
    scale = config.get("rope_scaling", {"factor": 1.0})["factor"]
    frequencies = 1.0 / ((config["rope_theta"] * scale) ** (torch.arange(0, dim, 2).double() / dim))
    frequencies = frequencies / scale ** (2 / dim)
    angles = torch.outer(torch.arange(len(ids)).double(), frequencies).repeat(1, 2)
    hidden = embedding(torch.tensor(ids), weights["new.embeddings.word_embeddings.weight"])
    if config["type_vocab_size"]:
        hidden = hidden + weights["new.embeddings.token_type_embeddings.weight"][0]
    hidden = norm(hidden, "new.embeddings.LayerNorm")
    for layer in (f"new.encoder.layer.{number}" for number in range(LAYERS)):
        qkv = dense(hidden, weights, f"{layer}.attention.qkv_proj").view(len(ids), 3, HEADS, dim)
        query, key, value = qkv.permute(1, 2, 0, 3)
        scores = turned(query) @ turned(key).transpose(1, 2) / math.sqrt(dim)
        context = (scores.softmax(-1) @ value).transpose(0, 1).reshape(len(ids), WIDTH)
        hidden = norm(hidden + dense(context, weights, f"{layer}.attention.o_proj"), f"{layer}.attn_ln")
        up, gate = dense(hidden, weights, f"{layer}.mlp.up_gate_proj").chunk(2, -1)
        hidden = norm(hidden + dense(gelu(gate) * up, weights, f"{layer}.mlp.down_proj"), f"{layer}.mlp_ln")
    return hidden


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({}, id="gte-multilingual-reranker-base"),
        pytest.param({"rope_scaling": ...}, id="unscaled"),
        pytest.param({"type_vocab_size": 0, "rope_scaling": {"factor": 2.0, "type": "ntk"}}, id="v1.5"),
    ],
)
def test_scores_are_those_of_the_published_code(tmp_path: Path, config: dict[str, Any]) -> None:
    path = make(tmp_path, **config)
    scorer = Scorer(ScorerConfig(model=str(path), device="cpu"))
    scores = scorer.score(PAIRS)
    assert cast("Any", scorer.model)._network.drops_padding
    weights, settings = load_file(path / "model.safetensors"), json.loads((path / "config.json").read_text())
    sequences = scorer.encode(PAIRS).sequences.to_pylist()
    assert max(map(len, sequences)) > 60
    expected = [logit(weights, settings, ids) for ids in sequences]
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            {"position_embedding_type": "absolute"},
            "position_embedding_type: 'absolute' is not run here, 'rope' is",
        ),
        ({"logn_attention_scale": True}, "logn_attention_scale: True is not run here, False is"),
        ({"pack_qkv": False}, "pack_qkv: False"),
        ({"layer_norm_type": "rms_norm"}, "layer_norm_type: 'rms_norm'"),
        ({"rope_theta": ...}, "rope_theta"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2.0}},
            "rope_scaling: .*yarn.* is not run here, type ntk",
        ),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}}, "rope_scaling: .*mixed_b"),
        ({"rope_scaling": {"type": "ntk", "factor": "2"}}, "rope_scaling"),
    ],
)
def test_what_transformers_network_does_not_compute_is_refused(
    tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(ModelError, match=rf"config\.json: {told}"):
        Scorer(ScorerConfig(model=str(make(tmp_path, **config)), device="cpu"))


def test_an_embedding_model_gives_the_first_tokens_state(tmp_path: Path) -> None:
    """Its files may have no prefix, as those of gte-large-en-v1.5, or a head of another kind."""
    path = make(tmp_path, architectures=["NewModel"])
    weights = load_file(path / "model.safetensors")
    save_file(
        {name.removeprefix("new."): weight for name, weight in weights.items()},
        path / "model.safetensors",
        metadata={"format": "pt"},
    )
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir()
    pooling = {
        "word_embedding_dimension": WIDTH,
        "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False,
    }
    (path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    scorer = Scorer(ScorerConfig(model=str(path), device="cpu"))
    texts = [passage for _, passage in PAIRS]
    found = scorer.embed(texts, "passage")
    sequences, _, _ = cast("EmbeddingEncoder", scorer.encoder).encode_texts(texts, "passage")
    settings = json.loads((path / "config.json").read_text())
    expected = [states(weights, settings, ids)[0].numpy() for ids in sequences.to_pylist()]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_what_is_trained_has_the_published_names(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    base = make(tmp_path / "base")
    flow.run(training(tmp_path, scorer={"model": str(base), "device": "cpu"}))
    made, before = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out/model", base))
    assert {name: tensor.shape for name, tensor in made.items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    settings = json.loads((tmp_path / "out/model/config.json").read_text())
    assert settings == json.loads((base / "config.json").read_text()) | {"torch_dtype": "float32"}
    scorer = Scorer(ScorerConfig(model=str(tmp_path / "out/model"), device="cpu"))
    sequences = scorer.encode(PAIRS).sequences.to_pylist()
    expected = [logit(made, settings, ids) for ids in sequences]
    np.testing.assert_allclose(scorer.score(PAIRS), expected, rtol=0, atol=1e-5)
    assert (
        np.abs(scorer.score(PAIRS) - Scorer(ScorerConfig(model=str(base), device="cpu")).score(PAIRS)).max()
        > 0.01
    )


def test_a_fresh_head_goes_under_the_published_codes_name(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    base = make(tmp_path / "base", architectures=["NewModel"])
    put_head(ScorerConfig(model=str(base), device="cpu"), tmp_path / "made", seed=1)
    assert json.loads((tmp_path / "made/config.json").read_text())["architectures"] == [
        "NewForSequenceClassification"
    ]
    assert len(Scorer(ScorerConfig(model=str(tmp_path / "made"), device="cpu")).score(PAIRS)) == len(PAIRS)
