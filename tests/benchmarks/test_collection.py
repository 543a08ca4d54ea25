from pathlib import Path
from typing import Any

import pytest

from benchmarks import cascade, scorer
from benchmarks.collection import with_files


@pytest.mark.parametrize(
    ("main", "arguments"), [(scorer.main, ["--collection"]), (cascade.main, [])], ids=["scorer", "cascade"]
)
def test_a_folder_that_is_no_collection_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    main: Any,
    arguments: list[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["x", *arguments, str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert f"{tmp_path}: is no collection: has no docs.jsonl; docs/benchmarks.md" in capsys.readouterr().err
    (tmp_path / "docs.jsonl").touch()
    (tmp_path / "queries.jsonl").touch()
    assert with_files()(str(tmp_path)) == tmp_path
