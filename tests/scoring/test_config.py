import pytest
from pydantic import ValidationError

from pipeline.scoring import ScorerConfig


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


def test_a_written_line_break_becomes_one() -> None:
    assert ScorerConfig(model="m", query_instruction_format="{}\\n{}").query_instruction_format == "{}\n{}"
