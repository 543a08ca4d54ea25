"""How far a job is, running or dead: `python -m pipeline.status --output out/demo`.

Told from the markers alone, wherever the job runs. Exit status: 0; 2 where there is no job's output.
"""

import argparse
import sys
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from pipeline import command
from pipeline.errors import OutputError
from pipeline.output import is_complete, read_record
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import is_silent, last_heartbeat
from pipeline.tables.output.markers import names_done


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("status", __doc__, config=False)
    parser.add_argument("--output", required=True, help="output.path of the job")
    parser.add_argument("--json", action="store_true", help="print it as JSON, for programs")
    options = parser.parse_args(arguments)
    return command.run(lambda: _tell(options))


def _tell(options: argparse.Namespace) -> command.Status:
    status = read(Directory(options.output), datetime.now(UTC))
    print(status.model_dump_json(indent=2) if options.json else "\n".join(status.lines()))
    return command.Status.FINISHED


class Status(BaseModel):
    """What the markers tell; the fields are what --json prints."""

    model_config = ConfigDict(frozen=True)

    state: Literal["running", "finished", "interrupted", "failed", "dead"]
    """Of the last start; dead: it says it runs, but is silent."""
    message: str
    complete: bool
    """Whether _SUCCESS is there: every shard is done. A start that finished may have given some up."""
    shards: int
    shards_done: int
    pairs: int
    """Of all shards."""
    host: str
    pid: int
    started: datetime
    last_heard: datetime
    pairs_per_s: float | None
    """Of this start; null until a shard is done."""

    def lines(self) -> list[str]:
        share = self.shards_done / max(1, self.shards)
        lines = [
            f"state    {_state(self)}",
            f"shards   {self.shards_done} of {self.shards} done ({share:.1%})",
            f"pairs    {self.pairs} in all",
            f"driver   process {self.pid} on {self.host}",
            f"since    {_time(self.started)}, last heard {_time(self.last_heard)}",
        ]
        if self.pairs_per_s:
            left_min = (1 - share) * self.pairs / self.pairs_per_s / 60
            left = f", about {left_min:.0f} minutes left" if self.shards_done < self.shards else ""
            lines.append(f"speed    {self.pairs_per_s:.1f} pairs/s in this start{left}")
        return lines


def read(output: Directory, now: datetime) -> Status:
    """Where the job stands. Raises OutputError where there is none."""
    record, heartbeat = read_record(output), last_heartbeat(output)
    if record is None or heartbeat is None:
        raise OutputError(f"{output.url}: no output of a job (no _manifest in it)")
    seconds = (heartbeat.time - heartbeat.started).total_seconds()
    return Status(
        state="dead" if heartbeat.state == "running" and is_silent(heartbeat, now) else heartbeat.state,
        message=heartbeat.message,
        complete=is_complete(output),
        shards=record.shards,
        shards_done=len(names_done(output)) if record.command == "rerank" else heartbeat.shards_done,
        pairs=record.pairs,
        host=heartbeat.host,
        pid=heartbeat.pid,
        started=heartbeat.started,
        last_heard=heartbeat.time,
        pairs_per_s=heartbeat.pairs_done / seconds if heartbeat.pairs_done and seconds else None,
    )


def _state(status: Status) -> str:
    if status.state == "dead":
        return "dead: it says it runs, but is silent. The same command goes on where it stopped"
    return f"{status.state}: {status.message}" if status.message else status.state


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


if __name__ == "__main__":
    sys.exit(main())
