"""Checkpoints as they lie on the hub: sharded, in other dtypes, naming remote code."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.prompting import first_token
from tests.conftest import DATA
from tests.scoring.checkpoints import edit, make_cross_encoder

CHECKPOINTS = sorted(path.name for path in DATA.glob("tiny-*"))
PAIRS = [("what is a panda?", "The giant panda is a bear."), ("what is a panda?", "hi"), ("a", "中国")]
AGREES = 1e-6
Weights = dict[str, torch.Tensor]


def score(path: Path, **options: object) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    config = ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options})
    return Scorer(config).score(PAIRS)


def copy(name: str, path: Path) -> Weights:
    """The checkpoint without its weights, and these."""
    shutil.copytree(DATA / name, path)
    weights = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    return weights


def save_sharded(weights: Weights, path: Path, count: int) -> None:
    places: dict[str, str] = {}
    for number in range(count):
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        shard = {name: weights[name] for name in sorted(weights)[number::count]}
        save_file(shard, path / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_sharded_weights_and_remote_code_that_is_not_run(tmp_path: Path, name: str) -> None:
    path = tmp_path / "sharded"
    save_sharded(copy(name, path), path, count=3)
    published = json.loads((path / "config.json").read_text())
    auto = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnModel"}
    (path / "config.json").write_text(json.dumps(published | {"auto_map": auto}))
    for module in ("configuration_own.py", "modeling_own.py"):
        (path / module).write_text("raise SystemExit('remote code ran')")
    np.testing.assert_allclose(score(path), score(DATA / name), atol=AGREES, rtol=0)


@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_dtype_of_the_file_is_not_that_of_the_work(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    lower, same = tmp_path / "lower", tmp_path / "same"
    weights = {key: tensor.to(dtype) for key, tensor in copy(name, lower).items()}
    save_sharded(weights, lower, count=2)
    copy(name, same)
    save_file({key: tensor.float() for key, tensor in weights.items()}, same / "model.safetensors")
    np.testing.assert_allclose(score(lower), score(same), atol=AGREES, rtol=0)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sharded"
    save_sharded(copy("tiny-bge-reranker-v2-minicpm-layerwise", path), path, count=3)
    (path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match="model-00002-of-00003.safetensors"):
        score(path)


def test_heads_stay_in_float32_where_the_trunk_does_not() -> None:
    config = ScorerConfig(
        model=str(DATA / "tiny-bge-reranker-v2.5-gemma2-lightweight"), device="cpu", dtype="bfloat16"
    )
    held = load_file(Path(config.model) / "model.safetensors")["lm_head.0.linear_head.weight"]
    heads = Scorer(config).model._heads  # type: ignore[attr-defined]
    torch.testing.assert_close(heads, held.float(), atol=0, rtol=0)


def test_an_adapter_of_another_model_is_refused() -> None:
    adapter = str(DATA / "adapter-tiny-bge-reranker-v2-gemma")
    with pytest.raises(ModelError, match=r"^peft_path: .*adapter-tiny-bge-reranker-v2-gemma"):
        score(DATA / "tiny-bge-reranker-v2.5-gemma2-lightweight", peft_path=adapter)


TIED, YES = "tiny-bge-reranker-v2-gemma", 261


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        # Tokens are trained in both ends.
        {"target_modules": ["q_proj"], "trainable_token_indices": [7, YES]},
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [YES]}},
    ],
)
def test_an_adapter_of_one_end_leaves_the_end_that_shares_its_weights(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    base = AutoModelForCausalLM.from_pretrained(DATA / TIED)
    assert base.lm_head.weight is base.model.embed_tokens.weight
    torch.manual_seed(0)
    settings = LoraConfig(r=2, lora_alpha=8, init_lora_weights=False, **options)
    with warnings.catch_warnings(action="ignore"):  # peft warns of the very thing that is tested
        adapted: Any = get_peft_model(base, settings)
        for name, weight in adapted.named_parameters():
            if "trainable_tokens" in name:
                weight.data += torch.randn_like(weight) / 10
        adapted.save_pretrained(str(tmp_path), save_embedding_layers=False)
    scorer = Scorer(ScorerConfig(model=str(DATA / TIED), device="cpu", peft_path=str(tmp_path)))
    assert first_token(scorer.checkpoint, "Yes") == YES
    for pair, found in zip(PAIRS, scorer.score(PAIRS), strict=True):
        ids = torch.tensor(scorer.encode([pair]).sequences.to_pylist())
        with torch.no_grad():
            expected = adapted(input_ids=ids).logits[0, -1, YES]
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 3}, "size mismatch for"),
        ({"target_modules": ["q_proj", "gate_proj", "k_proj"]}, "fits no weight of the checkpoint"),
        ({"peft_type": "FOO"}, "FOO"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "layer_replication is not run here"),
    ],
)
def test_what_is_wrong_with_an_adapter_is_one_short_message(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    shutil.copytree(DATA / f"adapter-{TIED}", tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(ModelError, match=message) as caught:
        score(DATA / TIED, peft_path=str(tmp_path))
    assert str(caught.value).startswith(f"peft_path: {tmp_path}: ")
    assert len(str(caught.value)) < 500


def test_an_adapter_that_is_no_lora_is_refused(tmp_path: Path) -> None:
    shutil.copytree(DATA / f"adapter-{TIED}", tmp_path, dirs_exist_ok=True)
    settings = {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match="is PREFIX_TUNING, LoRA is needed"):
        score(DATA / TIED, peft_path=str(tmp_path))


@pytest.mark.parametrize("key", ["q_proj.lora_A", "classifier.dense.weight"])
def test_an_adapter_file_that_lacks_weights_is_named(tmp_path: Path, key: str) -> None:
    name = "tiny-bge-reranker" if key.startswith("classifier") else TIED
    shutil.copytree(DATA / f"adapter-{name}", tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    lost = next(one for one in weights if key in one)
    save_file({one: weights[one] for one in weights if one != lost}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=f"lacks .*{key}"):
        score(DATA / name, peft_path=str(tmp_path))


def test_an_adapter_for_layers_above_the_cutoff_loads_what_is_below() -> None:
    name = "tiny-bge-reranker-v2-minicpm-layerwise"
    adapter = str(DATA / f"adapter-{name}")
    both = score(DATA / name, peft_path=adapter, cutoff_layers=(3, 6))
    np.testing.assert_allclose(
        score(DATA / name, peft_path=adapter, cutoff_layers=(3,)), both[:, 0], atol=1e-5, rtol=0
    )


def test_an_adapter_of_which_all_is_above_the_cutoff_changes_nothing(tmp_path: Path) -> None:
    name = "tiny-bge-reranker-v2-minicpm-layerwise"
    shutil.copytree(DATA / f"adapter-{name}", tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    only = {"layers_to_transform": [5], "modules_to_save": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings | only))
    weights = load_file(tmp_path / "adapter_model.safetensors")
    above = {key: value for key, value in weights.items() if ".layers.5." in key}
    assert above
    save_file(above, tmp_path / "adapter_model.safetensors")
    for cutoff, changes in ((3, False), (6, True)):
        found = score(DATA / name, peft_path=str(tmp_path), cutoff_layers=(cutoff,))
        assert (found != score(DATA / name, cutoff_layers=(cutoff,))).all() == changes


def saved_adapter(network: Any, path: Path, **options: Any) -> Any:
    """The network with an adapter that has learnt something, and lies at `path`."""
    torch.manual_seed(0)
    adapted: Any = get_peft_model(network, LoraConfig(r=2, **options))
    for weight in adapted.parameters():
        if weight.requires_grad:
            weight.data += torch.randn_like(weight) / 10
    adapted.save_pretrained(str(path))
    return adapted.eval()


def test_heads_are_trained_by_an_adapter_whose_layers_are_all_above_the_cutoff(tmp_path: Path) -> None:
    path = DATA / "tiny-bge-reranker-v2-minicpm-layerwise"
    whole = Scorer(ScorerConfig(model=str(path), device="cpu", cutoff_layers=(3, 6))).load_network()
    options = {"target_modules": ["q_proj"], "layers_to_transform": [5], "modules_to_save": ["linear_head"]}
    saved_adapter(whole, tmp_path, **options)
    both = score(path, peft_path=str(tmp_path), cutoff_layers=(3, 6))
    assert np.abs(both - score(path, cutoff_layers=(3, 6))).min() > 1e-3
    below = score(path, peft_path=str(tmp_path), cutoff_layers=(3,))
    np.testing.assert_allclose(below, both[:, 0], atol=1e-5, rtol=0)


def test_an_adapter_of_all_biases_has_that_of_the_head_once(tmp_path: Path) -> None:
    path = make_cross_encoder(tmp_path / "model", "bert")
    network = AutoModelForSequenceClassification.from_pretrained(path)
    options = {"task_type": "SEQ_CLS", "target_modules": ["query"], "bias": "all"}
    adapted = saved_adapter(network, tmp_path / "adapter", **options)
    scorer = Scorer(ScorerConfig(model=str(path), device="cpu", peft_path=str(tmp_path / "adapter")))
    for pair, found in zip(PAIRS, scorer.score(PAIRS), strict=True):
        encoded = scorer.encode([pair])
        ids = torch.tensor(encoded.sequences.to_pylist())
        types = (torch.arange(ids.shape[1]) >= encoded.inputs["type_one_start"][0].as_py()).long()[None]
        with torch.no_grad():
            expected = adapted(input_ids=ids, token_type_ids=types).logits[0, 0]
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_an_adapter_of_embeddings_and_of_tokens_in_them_is_refused_where_they_are_the_head(
    tmp_path: Path,
) -> None:
    network = AutoModelForCausalLM.from_pretrained(DATA / TIED)
    with warnings.catch_warnings(action="ignore"):
        saved_adapter(network, tmp_path, target_modules=["q_proj"], trainable_token_indices=[YES])
    file = tmp_path / "adapter_model.safetensors"
    both = load_file(file) | {"base_model.model.lm_head.lora_A.weight": torch.zeros(2, 16)}
    save_file(both, file)
    with pytest.raises(ModelError, match="adapts embeddings and some of their tokens"):
        score(DATA / TIED, peft_path=str(tmp_path))


def test_tensors_of_a_layer_that_the_network_has_no_place_for_are_refused(tmp_path: Path) -> None:
    """transformers drops them without a word, and the scores are those of another network."""
    path = make_cross_encoder(tmp_path, "bert")
    weights = load_file(path / "model.safetensors")

    def scores_with(name: str | None, **fields: Any) -> Any:
        more = {} if name is None else {name: torch.ones(3, 8)}
        save_file({**weights, **more}, path / "model.safetensors", {"format": "pt"})
        edit(path / "config.json", **fields)
        return float(Scorer(ScorerConfig(model=str(path), device="cpu")).score([("a", "b")])[0])

    expected = scores_with(None)
    computed = "bert.encoder.layer.0.attention.rotary_emb.inv_freq"
    for unread in ("bert.embeddings.position_ids", "cls.predictions.bias", computed):
        assert scores_with(unread) == pytest.approx(expected, abs=AGREES)
    with pytest.raises(
        ModelError, match=r"have bert\.encoder\.layer\.1\.attention\.self\.distance_embedding"
    ):
        scores_with(
            "bert.encoder.layer.1.attention.self.distance_embedding.weight",
            position_embedding_type="relative_key",
        )
    with pytest.raises(ModelError, match=r"the weights have bert\.encoder\.layer\.1\."):
        scores_with(None, num_hidden_layers=1)
