"""FlagEmbedding's training rows, file by file."""

import json
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.finetuning.row_files import RowFiles
from pipeline.tables.input.limits import DEFAULT_LIMITS
from tests.finetuning.rows import ROWS


def test_a_file_that_is_written_anew_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(ROWS[number % len(ROWS)]) + "\n" for number in range(20)))
    rows = RowFiles(str(path), DEFAULT_LIMITS).rows(with_scores=False)
    next(rows)
    path.write_text(path.read_text())
    with pytest.raises(InputError, match=r"rows\.jsonl: changed while the job ran"):
        list(rows)
