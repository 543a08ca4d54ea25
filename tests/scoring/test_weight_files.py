"""What is checked is what is loaded: safetensors, all of them, and no pickle."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.weight_files import stored_tensors
from tests.conftest import TINY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    shutil.copytree(TINY, tmp_path / "model")
    return tmp_path / "model"


def pickled(path: Path, name: str = "pytorch_model.bin") -> None:
    """A pickle that says so when it is loaded."""
    (path / name).write_bytes(b"cbuiltins\nexit\n(I77\ntR.")


def index(path: Path, **changes: Any) -> dict[str, Any]:
    """The weights in a shard, with an index; changes: of its places, or `metadata`."""
    (path / "model.safetensors").rename(path / "model-00001-of-00001.safetensors")
    names = load_file(path / "model-00001-of-00001.safetensors")
    metadata = changes.pop("metadata", {"total_size": 1})
    places: dict[str, Any] = dict.fromkeys(names, "model-00001-of-00001.safetensors") | changes
    content = {"metadata": metadata, "weight_map": places}
    (path / "model.safetensors.index.json").write_text(json.dumps(content))
    return content


def refused(path: Path, *named: str) -> None:
    with pytest.raises(ModelError) as caught:
        Scorer(ScorerConfig(model=str(path)))
    assert all(name in str(caught.value) for name in named), caught.value


def test_the_header_lists_the_tensors(path: Path) -> None:
    tensors = stored_tensors(path)
    assert tensors["classifier.out_proj.weight"].shape == (1, 48)
    assert tensors["classifier.out_proj.weight"].dtype == "F32"
    index(path)
    assert stored_tensors(path) == tensors


@pytest.mark.parametrize("shard", ["pytorch_model.bin", "../model/pytorch_model.bin", "weights.pt", 3])
def test_an_index_that_names_a_pickle_is_refused(path: Path, shard: object) -> None:
    index(path, **{"classifier.out_proj.weight": shard})
    pickled(path)
    refused(path, "model.safetensors.index.json", str(shard), "safetensors")


def test_an_index_that_leads_out_is_refused(path: Path) -> None:
    index(path, **{"classifier.out_proj.weight": "../outside.safetensors"})
    save_file({"classifier.out_proj.weight": torch.zeros(1, 48)}, path.parent / "outside.safetensors")
    refused(path, "model.safetensors.index.json", "../outside.safetensors")


def test_an_index_without_its_shards_names_the_first(path: Path) -> None:
    index(path)
    (path / "model-00001-of-00001.safetensors").unlink()
    refused(path, "model-00001-of-00001.safetensors")


def test_an_index_that_promises_too_much_names_the_tensor(path: Path) -> None:
    index(path, **{"classifier.more": "model-00001-of-00001.safetensors"})
    refused(path, "classifier.more", "model-00001-of-00001.safetensors")


def test_an_index_of_another_shape_is_named(path: Path) -> None:
    index(path, metadata=[])
    refused(path, "model.safetensors.index.json: metadata")


@pytest.mark.parametrize(
    "name",
    ["adapter_model.safetensors", "consolidated.safetensors", "onnx/model.safetensors", "Model.safetensors"],
)
def test_weights_of_another_name_are_not_those(path: Path, name: str) -> None:
    (path / name).parent.mkdir(exist_ok=True)
    (path / "model.safetensors").rename(path / name)
    pickled(path)
    refused(path, name, "pytorch_model.bin", "no *.safetensors")


def test_config_json_names_no_other_weights(path: Path) -> None:
    pickled(path, "adapter_model.bin")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"transformers_weights": "adapter_model.bin"}))
    refused(path, "config.json: transformers_weights")


def test_an_adapter_beside_the_model_is_not_loaded_in_silence(path: Path) -> None:
    (path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"})
    )
    pickled(path, "adapter_model.bin")
    refused(path, "adapter_config.json", "peft_path")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0f3a1b\nsize 2271071852\n",
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" + data[9:],
        lambda data: (2).to_bytes(8, "little") + b"[]",
        lambda data: (8).to_bytes(8, "little") + b'{"a": 1}',
    ],
)
def test_a_file_that_is_no_safetensors_is_named(path: Path, spoil: Callable[[bytes], bytes]) -> None:
    file = path / "model.safetensors"
    file.write_bytes(spoil(file.read_bytes()))
    refused(path, "model.safetensors")


def test_quantized_weights_are_named(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    name = "roberta.encoder.layer.0.attention.self.query.weight"
    weights[name] = weights[name].to(torch.int8)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    refused(path, name, "quantized")


def test_a_head_of_two_labels_is_seen_without_loading(path: Path) -> None:
    weights = load_file(path / "model.safetensors")
    weights["classifier.out_proj.weight"] = weights["classifier.out_proj.weight"].repeat(2, 1)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    refused(path, "classifier.out_proj.weight", "(2, 48)", "one logit")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_give_no_score_are_the_models_fault(path: Path, value: float) -> None:
    weights = load_file(path / "model.safetensors")
    weights["classifier.out_proj.bias"] = torch.full((1,), value)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=str(path)):
        _ = Scorer(ScorerConfig(model=str(path), device="cpu")).model
