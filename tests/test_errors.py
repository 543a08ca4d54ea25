import pickle

from pipeline.errors import InputError, ScoringError


def test_a_message_stays_what_it_is_when_others_add_to_the_args() -> None:
    error = InputError("table.parquet: no column 'q'")
    error.args = (f"{error.args[0]}\nadvice of somebody else",)
    assert str(pickle.loads(pickle.dumps(error))) == "table.parquet: no column 'q'"


def test_scoring_errors_cross_processes() -> None:
    error = pickle.loads(pickle.dumps(ScoringError(3, "why")))
    assert (error.index, error.reason, str(error)) == (3, "why", "pair 3: why")
