"""What TensorBoard shows of a training, read by its own reader."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pipeline.finetuning import flow
from tests.finetuning.rows import config
from tests.finetuning.test_flow import held_out, lines


def test_tensorboard_reads_every_step_once_also_where_the_training_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = config(tmp_path, held_out=held_out(tmp_path, every_steps=3))
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.finetuning.loop.Loop.finish", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            flow.run(job)
    (last,) = (tmp_path / "out/checkpoints").glob("step-00000006.*pt")
    last.write_bytes(b"")  # it goes on after step 4
    flow.run(job)
    folder = tmp_path / "out/tensorboard"
    assert [file.name[-1] for file in sorted(folder.iterdir())] == ["0", "3", "4", "5"]  # saved at 2, 3, 4, 6
    read = EventAccumulator(str(folder)).Reload()
    for name in ("loss", "learning_rate", "grad_norm", "nDCG@10"):
        told = [(line["step"], line["time"], line[name]) for line in lines(tmp_path) if name in line]
        shown = [(event.step, event.wall_time, event.value) for event in read.Scalars(name)]
        assert shown == [pytest.approx(one, rel=1e-6) for one in told]
    assert [event.step for event in read.Scalars("nDCG@10")] == [0, 3, 6]
