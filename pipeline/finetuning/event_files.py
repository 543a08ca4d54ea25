"""The metrics once more as TensorBoard reads them: OUTPUT/tensorboard, where its package is installed.

A file a checkpoint, since an object store has no file to append to; TensorBoard reads them one after another.
"""

import importlib.util
import io
from collections.abc import Iterable
from typing import Any

from pipeline.tables.output.directory import Directory

FOLDER = "tensorboard"
_COUNTED = {"step", "epoch", "time"}


def write(output: Directory, lines: Iterable[dict[str, Any]]) -> None:
    """A file with the numbers of these lines of the metrics, each under its name at its step."""
    if importlib.util.find_spec("tensorboard") is None:
        return
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415  (an extra, for those who use it)
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415  (the same)
    from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415  (the same)

    lines = list(lines)
    if not lines:
        return
    data = io.BytesIO()
    records = RecordWriter(data)
    records.write(Event(wall_time=lines[0]["time"], file_version="brain.Event:2").SerializeToString())
    for line in lines:
        values = [
            Summary.Value(tag=name, simple_value=value)
            for name, value in line.items()
            if name not in _COUNTED and value is not None
        ]
        event = Event(wall_time=line["time"], step=line["step"], summary=Summary(value=values))
        records.write(event.SerializeToString())
    output.write(f"{FOLDER}/events.out.tfevents.{lines[0]['step']:010d}", data.getvalue())
