import pickle
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from pipeline.config_problems import reason_of
from pipeline.errors import ConfigError
from pipeline.scoring import Limits, LongPassages, ScorerConfig

mistaken: Any = ScorerConfig
"""Without types, which would tell of most mistakes before they are made."""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("device", "gpu"),
        ("dtype", "float64"),
        ("max_length", 0),
        ("max_length", "512"),
        ("max_batch_tokens", -1),
        ("query_instruction_format", "{}"),
        ("query_instruction_format", "{}{}{}"),
        ("passage_instruction_format", "{name}{}"),
        ("batch_size", 32),
    ],
)
def test_what_does_not_fit_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        ScorerConfig.model_validate({"model": "m", field: value})
    fields: dict[str, object] = {"model": "m", field: value}
    with pytest.raises(ConfigError, match=rf"^{field}: ") as caught:
        mistaken(**fields)
    assert caught.value.field == field
    assert "http" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("use_fp16", "here it is dtype: float16"),
        ("use_bf16", "here it is dtype: bfloat16"),
        (
            "devices",
            "here it is device, one a Scorer; for several GPUs give a job as many actors, with num_gpus: 1",
        ),
        ("use_fp32", "here it is dtype: float32"),
        ("pooling_method", "here it is read from the checkpoint's own files"),
        ("normalize_embeddings", "here it is read from the checkpoint's own files"),
        ("model_class", "here it is family, read from the checkpoint's own files"),
        ("convert_to_numpy", "here it is not needed: all is numpy's arrays"),
        ("show_progress_bar", "here it is not needed: a job logs how far it is"),
        (
            "passage_instruction_for_retrieval",
            "put it before each passage, or into the checkpoint's config_sentence_transformers.json as the"
            " prompt `document`",
        ),
        ("compress_layer", "here it is compress_layers"),
        ("batch_size", "here it is max_batch_tokens, which counts tokens"),
        ("model_name_or_path", "here it is model"),
        ("cache_dir", "here it is the environment's HF_HUB_CACHE"),
        ("max_lenght", "did you mean max_length?"),
        ("query_instruction_for_rerankin", "did you mean query_instruction_for_rerank?"),
    ],
)
def test_names_that_people_bring_get_a_hint(name: str, here: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: there is no such field; ") as caught:
        mistaken(model="m", **{name: 1})
    assert str(caught.value).endswith(here)


def test_for_a_name_like_no_other_the_fields_are_listed() -> None:
    with pytest.raises(
        ConfigError,
        match="long_passages.zzz: there is no such field; the fields here are strategy, window, stride$",
    ):
        mistaken(model="m", long_passages={"strategy": "max", "zzz": 1})


def test_each_mistake_has_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        mistaken(max_length=0, long_passages={"strategi": "max"})
    assert str(caught.value).splitlines() == [
        "model: is required",
        "max_length: Input should be greater than 0, not 0",
        "long_passages.strategy: is required",
        "long_passages.strategi: there is no such field; did you mean strategy?",
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([0], "cutoff_layers.0: Input should be greater than 0, not 0"),
        ([4, "x"], "cutoff_layers.1: Input should be a valid integer"),
        ([], "cutoff_layers: needs one value or more, not []"),
    ],
)
def test_a_value_that_does_not_fit_a_list_is_no_second_mistake(value: list[Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        mistaken(model="m", cutoff_layers=value)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(told)


def test_a_value_without_a_name_is_told_its_name() -> None:
    with pytest.raises(ConfigError, match=r"name the fields: ScorerConfig\(model='org/name'\)"):
        mistaken("org/name")
    with pytest.raises(ConfigError, match="max_length: Input should be greater than 0"):
        Limits(max_length=0)


def test_a_part_of_another_config_is_described_with_its_place() -> None:
    class Job(BaseModel):
        scorers: dict[str, ScorerConfig | None]

    with pytest.raises(ValidationError) as caught:
        Job.model_validate({"scorers": {"one": {"model": "m", "fp16": True}}})
    (problem,) = caught.value.errors()
    assert problem["loc"] == ("scorers", "one", "fp16")
    assert reason_of(Job, problem).endswith("here it is dtype: float16")


def test_a_config_travels_between_processes() -> None:
    config = ScorerConfig(model="m", long_passages=LongPassages(strategy="max"))
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_written_line_break_becomes_one() -> None:
    assert ScorerConfig(model="m", query_instruction_format="{}\\n{}").query_instruction_format == "{}\n{}"
