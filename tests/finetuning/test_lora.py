"""Low-rank factors: what is trained, and that they are merged for export."""

from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.finetuning.config import DataConfig
from pipeline.finetuning.student import scorer_for_training
from pipeline.scoring import ScorerConfig
from tests.finetuning.test_trainer import GROUPS, MINICPM, tiny, trainer
from tests.scoring.checkpoints import make_cross_encoder


def test_lora_trains_factors_and_heads_and_is_merged_for_export() -> None:
    scorer = scorer_for_training(ScorerConfig(model=MINICPM, device="cpu"), DataConfig(path="-"))
    made, student = trainer(scorer, use_lora=True, lora_rank=4, gradient_checkpointing=True)
    names = set(student.trained)
    assert all("lora_" in name or name.startswith("lm_head.") for name in names)
    assert any(name.startswith("lm_head.") for name in names)
    assert any("q_proj.lora_A" in name for name in names)
    before = {name: each.clone() for name, each in student.module.state_dict().items()}
    losses_told = [made.step(GROUPS).loss for _ in range(3)]
    assert losses_told[-1] < losses_told[0]
    after = student.module.state_dict()
    changed = {name for name, each in before.items() if not torch.equal(each, after[name])}
    assert changed <= names
    student.module.eval()
    merged = student.merged()
    assert not any("lora" in name for name in merged.state_dict())
    weights = merged.model.layers[0].self_attn.q_proj.weight
    layer = student.module.model.layers[0].self_attn.q_proj
    factors = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    torch.testing.assert_close(weights, layer.base_layer.weight + 16 / 4 * factors)


def test_lora_trains_all_of_a_pooler(tmp_path: Path) -> None:
    """It is drawn at random where a checkpoint has none, and factors of a few ranks would leave it so."""
    scorer = ScorerConfig(model=str(make_cross_encoder(tmp_path, "bert")), device="cpu")
    _, student = trainer(scorer_for_training(scorer, DataConfig(path="-", max_len=100)), use_lora=True)
    assert "bert.pooler.dense.weight" in student.trained
    assert not any("lora_" in name for name in student.trained if ".pooler." in name)
    assert any("query.lora_A" in name for name in student.trained)


def test_names_that_no_layer_has_are_refused() -> None:
    message = r"^training.target_modules: no layer of the backbone ends in wrong$"
    with pytest.raises(ConfigError, match=message):
        trainer(tiny(), use_lora=True, target_modules=("query", "wrong"))
    with pytest.raises(ConfigError, match=r"^training.target_modules: peft takes none of them: "):
        trainer(tiny(), use_lora=True, target_modules=("self",))
