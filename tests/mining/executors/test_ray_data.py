"""Mining on a real Ray of this machine."""

from pathlib import Path

import pytest

from pipeline.mining import flow
from tests.mining.runs import bytes_of, config, rows, write


@pytest.mark.ray
@pytest.mark.usefixtures("on_head")
def test_it_writes_the_bytes_of_this_process(tmp_path: Path) -> None:
    source = write(tmp_path / "in", rows())
    qrels = tmp_path / "qrels"
    qrels.write_text("q0 0 p1 1\nq3 0 p2 1\n")
    positives = {"qrels": str(qrels)}
    alone = flow.run(config(source, "here", positives=positives))
    summary = flow.run(config(source, executor="ray_data", positives=positives))
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "here")
    assert summary == alone.model_copy(update={"output": summary.output, "wall_s": summary.wall_s})
