"""Training sees the losses that FlagEmbedding's own trainer sees, for twenty steps.

benchmarks/flag_embedding_losses.py made them, and says what the file has.
"""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from pipeline.finetuning.config import DataConfig, LossConfig, TrainingConfig
from pipeline.finetuning.sampling import Group
from pipeline.finetuning.student import GroupEncoder, Student, scorer_for_training
from pipeline.finetuning.trainer import Trainer
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from tests.conftest import DATA

FILES = DATA / "finetuning"
TOLERANCE = 1e-4


class LastHead(Student):
    """What FlagEmbedding trains of a layerwise model; here all heads are trained."""

    def scores(self, encoded: EncodedPairs) -> torch.Tensor:
        return super().scores(encoded)[:, -1:]


class Training(NamedTuple):
    scorer: Scorer
    student: Student
    trainer: Trainer


@cache
def reference() -> Any:
    return json.loads((FILES / "flag_embedding_losses.json").read_text())


@cache
def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FILES / "groups.jsonl").read_text().splitlines()]


def options_of(case: str) -> dict[str, Any]:
    options: dict[str, Any] = reference()["options"] | reference()["cases"][case]["options"]
    return options


def section(kind: Any, options: dict[str, Any], **more: Any) -> Any:
    return kind(**{name: value for name, value in options.items() if name in kind.model_fields} | more)


def scorer_of(case: str, model: Path) -> Scorer:
    options = options_of(case)
    scorer = section(ScorerConfig, options, model=str(model), device="cpu")
    return scorer_for_training(scorer, section(DataConfig, options, path="groups.jsonl"))


def training_of(case: str, folder: Path) -> Training:
    recorded, options = reference()["cases"][case], options_of(case)
    scorer = scorer_of(case, without_dropout(DATA / recorded["checkpoint"], folder / "model"))
    more: dict[str, Any] = {}
    if recorded["adapter"]:
        adapter = json.loads((DATA / recorded["adapter"] / "adapter_config.json").read_text())
        more = {"lora_rank": adapter["r"], "lora_alpha": adapter["lora_alpha"], "lora_dropout": 0.0}
    settings = section(TrainingConfig, options, **more)
    is_layerwise = recorded["checkpoint"].endswith("layerwise")
    kind = LastHead if is_layerwise and not recorded["all_heads"] else Student
    student = kind(scorer, settings, torch.device("cpu"))
    if recorded["adapter"]:
        begin_with(student, DATA / recorded["adapter"] / "adapter_model.safetensors")
    trainer = Trainer(
        student, GroupEncoder(scorer), settings, section(LossConfig, options), options["max_steps"]
    )
    return Training(scorer, student, trainer)


def without_dropout(checkpoint: Path, copy: Path) -> Path:
    """A copy that draws no random numbers."""
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    dropout = [name for name in config if name.endswith(("_dropout", "_dropout_prob")) and config[name]]
    (copy / "config.json").write_text(json.dumps(config | dict.fromkeys(dropout, 0.0)))
    return copy


def begin_with(student: Student, adapter: Path) -> None:
    """Replace the factors, which were drawn at random."""
    factors = {
        name.removeprefix("base_model.model.").replace(".weight", ".default.weight"): values
        for name, values in load_file(adapter).items()
    }
    assert factors.keys() == student.trained.keys()
    with torch.no_grad():
        for name, values in factors.items():
            student.trained[name].copy_(values)


def group_of(drawn: dict[str, Any], *, with_scores: bool) -> Group:
    row = rows()[drawn["row"]]
    places = [("pos", drawn["pos"]), *(("neg", index) for index in drawn["neg"])]
    scores = tuple(row[f"{side}_scores"][index] for side, index in places) if with_scores else None
    return Group(row["query"], tuple(row[side][index] for side, index in places), scores)


@pytest.mark.parametrize("case", reference()["cases"])
def test_losses_are_those_of_flag_embedding(case: str, tmp_path: Path) -> None:
    trainer = training_of(case, tmp_path).trainer
    with_scores = options_of(case).get("knowledge_distillation", False)
    for number, step in enumerate(reference()["cases"][case]["steps"]):
        drawn = [group for batch in step["batches"] for group in batch]
        did = trainer.step([group_of(group, with_scores=with_scores) for group in drawn])
        expected = sum(step["losses"]) / len(step["losses"])
        assert did.loss == pytest.approx(expected, abs=TOLERANCE), f"step {number}"
        assert did.learning_rate == pytest.approx(step["learning_rate"], abs=1e-9)
        if len(step["batches"]) == 1:  # transformers 4.46.0 adds the gradients of several up
            # Loosely: transformers 4.46.0 lets the norms of Gemma decay as well.
            assert did.grad_norm == pytest.approx(step["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("case", ["encoder", "decoder", "layerwise"])
def test_tokens_are_those_of_flag_embedding(case: str) -> None:
    checkpoint = reference()["cases"][case]["checkpoint"]
    scorer = scorer_of(case, DATA / checkpoint)
    pairs, expected = [], []
    for number, sides in reference()["sequences"][checkpoint].items():
        row = rows()[int(number)]
        for side, sequences in sides.items():
            pairs += [(row["query"], row[side][int(index)]) for index in sequences]
            expected += sequences.values()
    encoded = scorer.encode(pairs)
    assert encoded.sequences.to_pylist() == expected
    assert any(encoded.pairs["passage_cut"].to_pylist())
