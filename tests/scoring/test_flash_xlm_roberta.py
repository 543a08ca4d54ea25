"""A cross-encoder under flash-attn's names of its tensors, beside the same one under transformers' names."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import ModelError
from pipeline.finetuning import flow
from pipeline.scoring import Scorer, ScorerConfig
from tests.finetuning.rows import config as training
from tests.scoring.checkpoints import CORPUS, edit, make_cross_encoder

PAIRS = [("what is a panda", text) for text in ["hi", *CORPUS[:3], " ".join(CORPUS)]]
RENAMED = {
    "embeddings.LayerNorm": "emb_ln",
    "encoder.layer.": "encoder.layers.",
    "attention.output.dense": "mixer.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}
"""As in jina-reranker-v2-base-multilingual (vLLM's roberta.py renames the same)."""


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return make_cross_encoder(tmp_path / "plain", "xlm-roberta")


@pytest.fixture
def flash(plain: Path, tmp_path: Path) -> Path:
    path = shutil.copytree(plain, tmp_path / "flash")
    classes = {"AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig"}
    edit(path / "config.json", auto_map=classes, position_embedding_type="absolute", use_flash_attn=True)
    tensors = load_file(path / "model.safetensors")
    for number in range(json.loads((path / "config.json").read_text())["num_hidden_layers"]):
        attention = f"roberta.encoder.layer.{number}.attention.self"
        for kind in ("weight", "bias"):
            parts = [tensors.pop(f"{attention}.{part}.{kind}") for part in ("query", "key", "value")]
            tensors[f"roberta.encoder.layer.{number}.mixer.Wqkv.{kind}"] = torch.cat(parts)
    for here, there in RENAMED.items():
        tensors = {name.replace(here, there): tensor for name, tensor in tensors.items()}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def score(path: Path) -> Any:
    return Scorer(ScorerConfig(model=str(path), device="cpu")).score(PAIRS)


def test_scores_are_those_of_the_network_under_its_usual_names(plain: Path, flash: Path) -> None:
    assert np.std(score(plain)) > 0.05
    np.testing.assert_allclose(score(flash), score(plain), rtol=0, atol=1e-6)


def test_what_is_trained_has_the_published_names(flash: Path, plain: Path, tmp_path: Path) -> None:
    made = []
    for model in (flash, plain):
        (tmp_path / f"of_{model.name}").mkdir()
        flow.run(training(tmp_path / f"of_{model.name}", scorer={"model": str(model), "device": "cpu"}))
        made.append(tmp_path / f"of_{model.name}/out/model")
    names = [load_file(path / "model.safetensors").keys() for path in (flash, made[0])]
    assert names[0] == names[1]
    # Last bits of a step are steps of their own to the next one.
    np.testing.assert_allclose(score(made[0]), score(made[1]), rtol=0, atol=0.01)
    assert np.abs(score(made[0]) - score(flash)).max() > 0.1


@pytest.mark.parametrize("change", [{"position_embedding_type": "rotary"}, {"model_type": "roberta"}])
def test_another_network_under_these_names_is_refused(flash: Path, change: dict[str, str]) -> None:
    edit(flash / "config.json", **change)
    with pytest.raises(ModelError, match=r"position_embedding_type: a .*roberta of flash-attn's"):
        score(flash)
