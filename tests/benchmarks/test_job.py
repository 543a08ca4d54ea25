import pytest

from benchmarks.job import time_alone


def test_a_process_that_dies_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """It was waited for without end."""
    with pytest.raises(SystemExit, match="the process that scores alone ended with 1"):
        time_alone("/nowhere.parquet", 10, 1)
    assert "/nowhere.parquet" in capfd.readouterr().err
