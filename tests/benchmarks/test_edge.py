import pytest

from benchmarks.edge import main
from tests.ports import free_port


def test_a_server_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr("sys.argv", ["edge.py", "--url", url])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"--url {url}: no server answers there: Connection refused" in capsys.readouterr().err
