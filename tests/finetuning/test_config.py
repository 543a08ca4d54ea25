from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.config_file import load
from pipeline.errors import ConfigError
from pipeline.finetuning.config import FinetuneConfig
from tests.conftest import ROOT

DEMO = ROOT / "configs/finetune/demo.yaml"
WRONG = {
    "data.train_group_size=1": "data.train_group_size: Input should be greater than or equal to 2",
    "data.max_len=64": "data: max_len is the length of a pair: give it alone, or query_max_len and",
    "data.path=null": "data: needs either path, files of rows, or mined, a run with judgments",
    "data.mined={input: {path: x}, positives: {first: 1}}": "data: needs either path, files of rows,",
    "data.train_data=x": "data.train_data: there is no such field; here it is data.path",
    "loss.temperature=2": "loss: temperature and weight go with kl_divergence, not with cross_entropy",
    "scorer.max_length=64": "scorer.max_length: data.query_max_len and data.passage_max_len,",
    "scorer.normalize=true": "scorer.normalize: losses are of raw scores",
    "training.fp16=true": "training.fp16: there is no such field; here it is training.dtype: float16",
    "data.model_name_or_path=x": "data.model_name_or_path: there is no such field; here it is scorer.model",
    "training.deepspeed=x": "training.deepspeed: there is no such field; here it is actors; each",
    "logging_steps=1": "logging_steps: there is no such field; here it is not needed: OUTPUT/",
    "training.lr_scheduler_type=x": "here it is not supported: the rate falls linearly to 0",
    "learning_rate=1": "learning_rate: there is no such field; there is training.learning_rate",
    "training.learning_rate=6e-5": "valid number, not '6e-5'; YAML needs a point and a sign: 6.0e-5",
    "training.learning_rate=1.5e3": "valid number, not '1.5e3'; YAML needs a point and a sign: 1.5e+3",
    "training.learning_rate=high": "valid number, not 'high'\n",
    "training.target_modules=q_proj": "training.target_modules: needs a list, such as [q_proj], not 'q_proj'",
    "data.mined.negatives.ranks=2-200": "ranks: needs a list, such as [2, 200], not '2-200'",
    "scorer.cutoff_layers=28": "scorer.cutoff_layers: needs a list, such as [28], not 28",
    "num_workers=2": "num_workers: there is no such field; here it is actors.min and actors.max",
    "actors.max=99": "actors.max 99 is more than the groups of a step, ",
    "actors.num_cpus=0": "actors.num_cpus 0: an actor without a GPU needs a CPU",
    "actors.num_gpus=0.5": "actors.num_gpus 0.5: an actor trains on one GPU, which it has alone",
    "training.dtype=int8": "training.dtype: Input should be 'float32', 'bfloat16' or 'float16'",
}


def demo(*overrides: str) -> FinetuneConfig:
    return load(FinetuneConfig, DEMO, [*overrides])


@pytest.mark.parametrize("override", WRONG)
def test_what_does_not_fit_is_refused_by_field(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        demo(override)
    assert WRONG[override] in f"{caught.value}\n"


@pytest.mark.parametrize("name", FinetuneConfig.NAMES_ELSEWHERE)
def test_an_option_of_other_trainers_is_told_where_it_is(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no such field; here it is ") as caught:
        demo(f"training.{name}=x")
    named = str(caught.value).partition("here it is ")[2].split()[0].strip(",;:")
    section, _, field = named.partition(".")
    if field:  # it is one that there is
        annotation = FinetuneConfig.model_fields[section].annotation
        assert any(field in getattr(kind, "model_fields", {}) for kind in (annotation, *get_args(annotation)))


def test_distillation_goes_with_one_loss() -> None:
    assert demo("loss.knowledge_distillation=true").loss.needs_scores
    with pytest.raises(ConfigError, match="knowledge_distillation goes with cross_entropy; mse is another"):
        demo("loss.name=mse", "loss.knowledge_distillation=true")


def test_where_things_lie_does_not_make_another_job(tmp_path: Path) -> None:
    fields = demo().determining_fields()
    same = (
        "output.path=x",
        "num_cpus=3",
        "actors.max=2",
        "training.save_steps=7",
        "data.path=y",
        "scorer.model=z",
    )
    assert demo(*same).determining_fields() == fields
    changed: dict[str, Any] = demo("training.seed=7").determining_fields()
    assert {name for name in fields if changed[name] != fields[name]} == {"training.seed"}
