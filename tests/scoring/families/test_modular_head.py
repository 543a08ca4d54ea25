"""Heads of modules against sentence-transformers' own CrossEncoder, which also saved the checkpoints."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from transformers import AutoModel

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.scoring.checkpoints import KINDS, SIZES, copied, edit, make_modular
from tests.scoring.references import AGREES, PAIRS, cross_encoder, ours

POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ["mean", "cls"]]
TANH = "torch.nn.modules.activation.Tanh"


def scorer(path: Path, **options: Any) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options}))


@pytest.fixture(scope="module")
def ettin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As cross-encoder/ettin-reranker-*: ModernBERT, its first token, Dense with GELU, LayerNorm, Dense."""
    return make_modular(tmp_path_factory.mktemp("ettin"), "modernbert")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BERT with token types, the mean of its tokens, and one Dense."""
    return make_modular(tmp_path_factory.mktemp("plain"), "bert", "mean", deep=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("pooling", "deep"), [("cls", True), ("mean", False)])
def test_every_backbone_scores_as_in_sentence_transformers(
    tmp_path: Path, kind: str, pooling: str, deep: bool
) -> None:
    path = make_modular(tmp_path, kind, pooling, deep=deep)
    expected = cross_encoder(path)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(ours(path), expected, atol=AGREES, rtol=AGREES)
    assert scorer(path).family == "modular_head"


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@pytest.mark.parametrize("kind", ["modernbert", "deberta-v2"])
def test_every_pooling_on_packed_and_on_padded_batches(tmp_path: Path, kind: str, pooling: Any) -> None:
    path = make_modular(tmp_path, kind, pooling)
    model: Any = scorer(path).model
    assert model._network.drops_padding == (kind == "modernbert")
    np.testing.assert_allclose(ours(path), cross_encoder(path), atol=AGREES, rtol=AGREES)


@pytest.mark.parametrize("name", ["ettin", "plain"])
def test_a_score_depends_on_neither_batch_nor_order(request: pytest.FixtureRequest, name: str) -> None:
    path = request.getfixturevalue(name)
    words, chance = ["what", "is", "a", "panda", "bear", "native", "to", "China", "one"], random.Random(3)
    pairs = [
        (" ".join(chance.choices(words, k=1 + k % 5)), " ".join(chance.choices(words, k=k)))
        for k in range(40)
    ]
    peer = CrossEncoder(str(path), device="cpu")
    expected = dict(zip(pairs, peer.predict(pairs, activation_fn=torch.nn.Identity()), strict=True))

    @settings(max_examples=20, deadline=None, derandomize=True)
    @given(order=st.permutations(pairs), count=st.integers(1, 40), budget=st.sampled_from([1, 90, 100_000]))
    def holds(order: list[tuple[str, str]], count: int, budget: int) -> None:
        scores = models[budget].score(order[:count])
        np.testing.assert_allclose(
            scores, [expected[pair] for pair in order[:count]], atol=AGREES, rtol=AGREES
        )

    models = {budget: scorer(path, max_batch_tokens=budget) for budget in (1, 90, 100_000)}
    holds()


OF_POOLING, OF_DENSE, OF_NORM, OF_LAST = (
    f"{name}/config.json" for name in ("1_Pooling", "2_Dense", "3_LayerNorm", "4_Dense")
)
OF_TRANSFORMER, OF_MODEL = "sentence_bert_config.json", "config_sentence_transformers.json"


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        (OF_POOLING, {"pooling_mode": "max"}),
        (OF_POOLING, {"pooling_mode": ..., "pooling_mode_max_tokens": True}),
        (OF_DENSE, {"activation_function": TANH}),
        (OF_DENSE, {"activation_function": ...}),
        (OF_DENSE, {"module_input_name": ..., "module_output_name": ...}),
        (OF_DENSE, {"module_output_name": None, "use_residual": False}),
        (OF_LAST, {"activation_function": TANH}),
        (OF_TRANSFORMER, {"transformer_task": ..., "modality_config": ..., "module_output_name": ...}),
        (OF_TRANSFORMER, {"max_seq_length": 16}),
        (OF_TRANSFORMER, {"do_lower_case": True}),
        (OF_MODEL, {"prompts": {"q": "query: "}, "default_prompt_name": "q"}),
        (OF_MODEL, {"activation_fn": "torch.nn.modules.linear.Identity"}),
        ("config.json", {"architectures": ["ModernBertForSequenceClassification"]}),
    ],
    ids=str,
)
def test_what_a_file_says_is_honoured(ettin: Path, tmp_path: Path, file: str, fields: dict[str, Any]) -> None:
    path = copied(ettin, tmp_path)
    edit(path / file, **fields)
    assert scorer(path).family == "modular_head"
    np.testing.assert_allclose(ours(path), cross_encoder(path), atol=AGREES, rtol=AGREES)


@pytest.mark.parametrize(
    ("file", "fields", "refusal"),
    [
        (OF_POOLING, {"include_prompt": False}, "is false; no prompt is left out"),
        (OF_POOLING, {"pooling_mode": "attention"}, r"unknown pooling \['attention'\]"),
        (
            OF_DENSE,
            {"activation_function": "torch.nn.modules.activation.Softmax"},
            ".*Softmax is not run here",
        ),
        (OF_DENSE, {"activation_function": "own.code.Activation"}, "own.code.Activation is not run here"),
        (OF_DENSE, {"module_input_name": "token_embeddings"}, "token_embeddings is not run here, sentence_e"),
        (OF_DENSE, {"module_output_name": "scores"}, "scores is not run here, sentence_embedding is"),
        (OF_DENSE, {"scale": 2.0}, "is not run here"),
        (OF_DENSE, {"in_features": 16}, "is 16, and 32 numbers come from the module before"),
        (OF_DENSE, {"in_features": ...}, "is missing"),
        (OF_NORM, {"dimension": 12}, "is 12, and 24 numbers come from the module before"),
        (OF_NORM, {"eps": 0.1}, "is not run here"),
        (OF_LAST, {"module_output_name": "sentence_embedding"}, "sentence_embedding is not run here, scores"),
        (OF_LAST, {"out_features": 3}, "is 3, a reranker has one score"),
        (OF_TRANSFORMER, {"transformer_task": "fill-mask"}, "is not run here, feature-extraction is"),
        (OF_TRANSFORMER, {"module_output_name": "scores"}, "is not run here, token_embeddings is"),
        (OF_TRANSFORMER, {"processing_kwargs": {"text": {"max_length": 10}}}, "is not run here"),
        (OF_MODEL, {"default_prompt_name": "nowhere"}, "names 'nowhere', which prompts has not"),
        (OF_MODEL, {"activation_fn": TANH}, "the activation function .*Tanh is not run here"),
    ],
    ids=str,
)
def test_what_is_not_run_is_refused_by_file_and_field(
    ettin: Path, tmp_path: Path, file: str, fields: dict[str, Any], refusal: str
) -> None:
    path = copied(ettin, tmp_path)
    edit(path / file, **fields)
    (name,) = fields
    with pytest.raises(ModelError, match=rf"/model/{file}: {name}: {refusal}"):
        scorer(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"type": "sentence_transformers.sentence_transformer.modules.cnn.CNN"},
            "names .*CNN.*; modular_head r",
        ),
        ({"type": "own.Layer"}, "own.Layer is code of the checkpoint's own"),
        ({"path": "../elsewhere"}, "leads out of the checkpoint"),
        (None, "names Transformer, Pooling, Dense, LayerNorm; modular_head runs"),
    ],
)
def test_other_modules_are_refused(
    ettin: Path, tmp_path: Path, change: dict[str, str] | None, message: str
) -> None:
    path = copied(ettin, tmp_path)
    modules = json.loads((path / "modules.json").read_text())
    if change is None:
        modules.pop()
    else:
        modules[3] |= change
    (path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelError, match=message):
        scorer(path)


def test_weights_that_are_not_the_modules_are_refused(ettin: Path, tmp_path: Path) -> None:
    path = copied(ettin, tmp_path)
    weights = path / "2_Dense/model.safetensors"
    save_file(load_file(weights) | {"linear.bias": torch.zeros(24)}, weights)
    with pytest.raises(
        ModelError, match=r"2_Dense/model.safetensors: has .* the module of config.json needs"
    ):
        scorer(path)
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ModelError, match=r"2_Dense/model.safetensors: is not there; pickled weights"):
        scorer(path)


def test_another_family_does_not_take_it(ettin: Path) -> None:
    for family in ("bi_encoder", "sequence_classification"):
        with pytest.raises(ModelError):
            scorer(ettin, family=family)
    with pytest.raises(ConfigError, match="has no such option; use query_instruction_for_rerank"):
        scorer(ettin, query_instruction_for_retrieval="q")


def test_a_family_named_for_another_checkpoint_is_refused(ettin: Path) -> None:
    with pytest.raises(ModelError, match="is no cross-encoder of sentence-transformers with a Pooling"):
        scorer(ettin.parent / "trunk", family="modular_head")


def test_the_fingerprint_covers_the_modules(ettin: Path, tmp_path: Path) -> None:
    path = copied(ettin, tmp_path)
    before = scorer(path).fingerprint
    assert before == scorer(ettin).fingerprint
    edit(path / "2_Dense/config.json", activation_function=TANH)
    other = scorer(path).fingerprint
    weights = load_file(path / "4_Dense/model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, path / "4_Dense/model.safetensors")
    assert len({before, other, scorer(path).fingerprint}) == 3


@pytest.mark.parametrize("name", ["ettin", "plain"])
def test_in_bfloat16_the_head_stays_in_float32(request: pytest.FixtureRequest, name: str) -> None:
    path = request.getfixturevalue(name)
    np.testing.assert_allclose(ours(path, dtype="bfloat16"), ours(path), atol=0.3, rtol=0.1)
    model: Any = scorer(path, dtype="bfloat16").model
    (head,) = [cell.cell_contents for cell in model._score_of.__closure__]
    assert {weight.dtype for weight in head.parameters()} == {torch.float32}


def test_windows_and_options_of_a_pair(plain: Path) -> None:
    pairs = [("what is a panda?", "the giant panda is a bear " * 9)]
    windows = scorer(plain, long_passages={"strategy": "max", "window": 12, "stride": 6})
    assert len(windows.encode(pairs).sequences) > 3
    assert np.isfinite(windows.score(pairs)).all()
    raw, shown = ours(plain), ours(plain, normalize=True)
    np.testing.assert_allclose(shown, 1 / (1 + np.exp(-raw)), atol=1e-6)
    default = CrossEncoder(str(plain), device="cpu").predict(PAIRS[:1])
    np.testing.assert_allclose(shown[:1], default, atol=AGREES)
    told = scorer(plain, query_instruction_for_rerank="panda ").score([("bear", "one")])
    np.testing.assert_allclose(told, scorer(plain).score([("panda bear", "one")]), atol=0)


def test_an_adapter_of_the_backbone_is_merged(plain: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    settings = LoraConfig(r=4, target_modules=["query", "value"], init_lora_weights=False)
    adapted: Any = get_peft_model(AutoModel.from_pretrained(plain), settings)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    path = copied(plain, tmp_path)
    adapted.merge_and_unload().save_pretrained(path)
    with_adapter = ours(plain, peft_path=str(tmp_path / "adapter"))
    np.testing.assert_allclose(with_adapter, cross_encoder(path), atol=AGREES, rtol=AGREES)
    assert np.abs(with_adapter - ours(plain)).max() > 1e-3


@pytest.mark.parametrize("name", ["ettin", "plain"])
def test_openvino_scores_as_torch(request: pytest.FixtureRequest, name: str) -> None:
    pytest.importorskip("openvino")
    path = request.getfixturevalue(name)
    np.testing.assert_allclose(ours(path, engine="openvino"), ours(path), atol=AGREES, rtol=AGREES)


def test_its_tensors_are_the_checkpoints(ettin: Path, tmp_path: Path) -> None:
    network: Any = scorer(ettin).load_network()
    network.save_pretrained(tmp_path)
    for file in sorted(ettin.rglob("*.safetensors")):
        stored, saved = load_file(file), load_file(tmp_path / file.relative_to(ettin))
        assert stored.keys() == saved.keys()
        assert all(torch.equal(stored[name], saved[name]) for name in stored)
    assert network.config.hidden_size == SIZES["hidden_size"]
