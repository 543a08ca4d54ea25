"""Checkpoints as they lie on the hub: sharded, in other dtypes, naming remote code."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import DATA

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
    with pytest.raises(ModelError, match=r"scorer.peft_path: .*adapter-tiny-bge-reranker-v2-gemma"):
        score(DATA / "tiny-bge-reranker-v2.5-gemma2-lightweight", peft_path=adapter)


def test_an_adapter_for_layers_above_the_cutoff_loads_what_is_below() -> None:
    name = "tiny-bge-reranker-v2-minicpm-layerwise"
    adapter = str(DATA / f"adapter-{name}")
    both = score(DATA / name, peft_path=adapter, cutoff_layers=(3, 6))
    np.testing.assert_allclose(
        score(DATA / name, peft_path=adapter, cutoff_layers=(3,)), both[:, 0], atol=1e-5, rtol=0
    )
