import pytest

from benchmarks.kills import main


@pytest.mark.parametrize("minutes", ["0", "-1"])
def test_no_time_is_no_proof(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It told of 0 kills with the right bytes."""
    with pytest.raises(SystemExit, match="2"):
        main([f"--minutes={minutes}"])
    assert "--minutes: needs more than 0" in capsys.readouterr().err
