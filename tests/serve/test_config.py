"""The args of a Serve config."""

import pytest
from pydantic import ValidationError

from serve.config import ApiConfig, ReplicasConfig, ServeConfig


def test_blanks_in_label_selectors_are_taken_out() -> None:
    config = ReplicasConfig(label_selector={"ray.io/accelerator-type": "in(A100, H100)"})
    assert config.label_selector == {"ray.io/accelerator-type": "in(A100,H100)"}


def test_docstrings_describe_the_fields() -> None:
    assert ApiConfig.model_fields["log_texts"].description == "Write queries and passages to the log."


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        (["other"], "'other' stands there twice"),
        (["again", "again"], "'again' stands there twice"),
        (
            ["again", "again", "other", "one"],
            "'one', 'again', 'other' stand there twice: a name or alias is of",
        ),
        (["default"], "'default' can't be a model's name"),
    ],
)
def test_a_name_is_of_one_model(aliases: list[str], message: str) -> None:
    scorer = {"scorer": {"model": "m"}}
    models = {"one": {**scorer, "aliases": aliases}, "other": scorer}
    with pytest.raises(ValidationError, match=message):
        ServeConfig.model_validate({"models": models, "api": {"keys": "none"}})
