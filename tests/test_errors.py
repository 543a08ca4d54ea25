import pickle

import pytest

from pipeline.errors import ConfigError, InputError, LateError, NotThereError, ScoringError, fields_under


def test_a_message_stays_what_it_is_when_others_add_to_the_args() -> None:
    error = InputError("table.parquet: no column 'q'")
    error.args = (f"{error.args[0]}\nadvice of somebody else",)
    assert str(pickle.loads(pickle.dumps(error))) == "table.parquet: no column 'q'"


def test_scoring_errors_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(ScoringError(3, "why")))
    assert (error.index, error.reason, str(error)) == (3, "why", "pair 3: why")


def test_errors_of_a_place_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(NotThereError("s3://b/in", "no such file")))
    assert (error.place, str(error)) == ("s3://b/in", "s3://b/in: no such file")


def test_what_is_late_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(LateError("in: no such file", "; wait")))
    assert (error.lack, str(error)) == ("in: no such file", "in: no such file; wait")


def test_who_knows_the_nesting_names_a_field_in_full() -> None:
    message = r"^models.scorer.max_length 9: too short$"
    with pytest.raises(ConfigError, match=message) as caught, fields_under("models"), fields_under("scorer"):
        raise ConfigError("max_length 9: too short", field="max_length")
    assert caught.value.field == "models.scorer.max_length"
    assert str(pickle.loads(pickle.dumps(caught.value))) == "models.scorer.max_length 9: too short"
    with pytest.raises(InputError, match="^no field$"), fields_under("scorer"):
        raise InputError("no field")
