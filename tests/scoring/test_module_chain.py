"""Modules behind a pooling, against sentence-transformers, which also saved the checkpoints."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Normalize, Pooling
from transformers import AutoConfig, AutoModel

from pipeline.errors import ModelError
from pipeline.finetuning import flow
from pipeline.scoring import Scorer, ScorerConfig
from tests.finetuning.rows import config as training
from tests.scoring.checkpoints import SIZES, edit, make_chatty, make_trunk, network_of
from tests.scoring.references import AGREES, PAIRS, cross_encoder, ours

WIDTH: int = SIZES["hidden_size"]
TEXTS = [passage for _, passage in PAIRS]


def scorer(path: Path, **options: Any) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options}))


def saved(path: Path, kind: str, modules: list[Any], maker: Any = SentenceTransformer) -> Path:
    trunk = Transformer(str(make_trunk(path / "trunk", kind)), transformer_task="feature-extraction")
    torch.manual_seed(1)
    for module in modules:
        for weight in module.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    maker(modules=[trunk, *modules], device="cpu").save_pretrained(str(path / "model"))
    return path / "model"


def like_embeddinggemma() -> list[Any]:
    wide = [
        Dense(WIDTH, 4 * WIDTH, bias=False, activation_function=None),
        Dense(4 * WIDTH, WIDTH, bias=False, activation_function=None),
    ]
    return [Pooling(WIDTH, "mean"), *wide, Normalize()]


def like_labse() -> list[Any]:
    return [Pooling(WIDTH, "cls"), Dense(WIDTH, WIDTH), Normalize()]


def odd() -> list[Any]:
    residual: dict[str, Any] = {"activation_function": torch.nn.SiLU(), "use_residual": True}
    parts = [Dense(2 * WIDTH, 24, **residual), Normalize(), LayerNorm(24), Dropout(0.5)]
    return [Pooling(WIDTH, ["mean", "cls"]), *parts, Dense(24, 24, **residual)]


@pytest.mark.parametrize("modules", [like_embeddinggemma, like_labse, odd])
@pytest.mark.parametrize("kind", ["bert", "deberta-v2"])
def test_embeddings_are_those_of_sentence_transformers(tmp_path: Path, kind: str, modules: Any) -> None:
    path = saved(tmp_path, kind, modules())
    model, peer = scorer(path, max_batch_tokens=90), SentenceTransformer(str(path), device="cpu")
    assert model.family == "bi_encoder"
    expected = peer.encode(TEXTS)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(model.embed(TEXTS, "passage"), expected, atol=AGREES, rtol=AGREES)
    queries = peer.encode([query for query, _ in PAIRS])
    similar = peer.similarity_pairwise(queries, expected).numpy()
    np.testing.assert_allclose(model.score(PAIRS), similar, atol=AGREES, rtol=AGREES)


def test_embeddinggemma_reads_both_ways_and_leaves_no_cache(tmp_path: Path) -> None:
    make_chatty(tmp_path / "words", "qwen2")
    torch.manual_seed(0)
    settings = AutoConfig.for_model(
        "gemma3_text",
        vocab_size=500,
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=64,
        sliding_window=16,
        use_bidirectional_attention=True,
        pad_token_id=0,
        initializer_range=0.3,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )
    maker: Any = AutoModel
    maker.from_config(settings).save_pretrained(tmp_path / "words")
    modules = [Transformer(str(tmp_path / "words")), *like_embeddinggemma()]
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    path = tmp_path / "model"
    SentenceTransformer(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(path))
    model, peer = scorer(path, max_batch_tokens=90), SentenceTransformer(str(path), device="cpu")
    texts = [*TEXTS, " ".join(TEXTS) * 3]
    np.testing.assert_allclose(
        model.embed(texts, "passage"), peer.encode_document(texts), atol=AGREES, rtol=AGREES
    )
    np.testing.assert_allclose(
        model.embed(texts, "query"), peer.encode_query(texts), atol=AGREES, rtol=AGREES
    )
    assert network_of(model).config.use_cache is False


def test_a_part_of_an_embedding_is_taken_behind_all_modules(tmp_path: Path) -> None:
    path = saved(tmp_path, "bert", like_embeddinggemma()[:-1])
    edit(path / "config_sentence_transformers.json", truncate_dim=10)
    expected = SentenceTransformer(str(path), device="cpu").encode(TEXTS)
    assert expected.shape[1] == 10
    np.testing.assert_allclose(scorer(path).embed(TEXTS, "query"), expected, atol=AGREES, rtol=AGREES)


def head_of_a_reranker() -> list[Any]:
    last = Dense(24, 1, activation_function=None, module_output_name="scores", use_residual=True)
    return [*odd(), last]


def test_a_head_with_residual_parts_scores_as_in_sentence_transformers(tmp_path: Path) -> None:
    path = saved(tmp_path, "modernbert", head_of_a_reranker(), CrossEncoder)
    assert scorer(path).family == "modular_head"
    expected = cross_encoder(path)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(ours(path), expected, atol=AGREES, rtol=AGREES)


def test_such_a_head_is_trained_and_written_for_sentence_transformers(tmp_path: Path) -> None:
    base = saved(tmp_path, "bert", head_of_a_reranker(), CrossEncoder)
    flow.run(training(tmp_path, scorer={"model": str(base), "device": "cpu"}))
    made = tmp_path / "out/model"
    assert {file.relative_to(made) for file in made.rglob("*.safetensors")} == {
        file.relative_to(base) for file in base.rglob("*.safetensors")
    }
    np.testing.assert_allclose(ours(made), cross_encoder(made), atol=AGREES, rtol=AGREES)
    assert np.abs(ours(made) - ours(base)).max() > 0.01


@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        ("2_Dense/config.json", {"use_residual": False}, "2_Dense/model.safetensors: has .*residual.* needs"),
        ("2_Dense/config.json", {"in_features": 31}, "in_features: is 31, and 64 numbers come from the"),
        ("2_Dense/config.json", {"module_output_name": "scores"}, "module_output_name: scores is not run"),
        ("5_Dropout/config.json", {"dropout": 1}, "dropout: is 1.0, a share from 0 on and below 1"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.Mish"}, "activation_function: .*Mish"),
    ],
)
def test_what_the_weights_are_not_for_is_refused(tmp_path: Path, file: str, fields: Any, told: str) -> None:
    path = saved(tmp_path, "bert", odd())
    edit(path / file, **fields)
    with pytest.raises(ModelError, match=told):
        scorer(path)
