"""How far a job is, running or dead: `python -m pipeline.status --output out/demo`.

Told from what lies there, wherever the job runs. Exit status: 0; 4 where files are missing or damaged; 2
where there is no job's output; 75 where its store does not answer: try again later.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import command
from pipeline.errors import OutputError
from pipeline.job_record import JobRecord, dtypes_of, read_record
from pipeline.output import is_complete
from pipeline.reporting.summary import caveat
from pipeline.standard_streams import show
from pipeline.tables.output.attempts import Quarantined
from pipeline.tables.output.damage import SUMMARY, find_problems, missing_data
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import names_done
from pipeline.tables.output.lease import Heartbeat, is_silent, last_heartbeat
from pipeline.tables.output.markers import ShardReport, markers
from pipeline.tables.output.tasks import TaskReport

_SHOWN = 10


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("status", __doc__, config=False)
    parser.add_argument("--output", required=True, help="output.path of the job")
    parser.add_argument("--json", action="store_true", help="print it as JSON, for programs")
    parser.add_argument("--check-bytes", action="store_true", help="read all files of a finished output")
    options = parser.parse_args(arguments)
    return command.run(lambda: _tell(options))


def _tell(options: argparse.Namespace) -> command.Status:
    status = read(Directory(options.output), datetime.now(UTC), check_bytes=options.check_bytes)
    show(status.model_dump_json(indent=2) if options.json else "\n".join(status.lines()))
    return command.Status.SHARDS_MISSING if status.damaged else command.Status.FINISHED


class Status(BaseModel):
    """What the markers tell; the fields are what --json prints."""

    model_config = ConfigDict(frozen=True)

    state: Literal["running", "finished", "interrupted", "failed", "dead", "unknown"] = "unknown"
    """Of the last start; dead: its heartbeat has stopped; unknown: it is lost or damaged."""
    message: str = ""
    complete: bool
    """Whether _SUCCESS is there and nothing is damaged: every shard is done. A start that finished may have
    given some up."""
    damaged: list[str]
    """Files of a finished output that are missing, damaged or strange there; of another, markers without
    their data. The job's next start makes them again."""
    command: str
    """Of pipeline: rerank, retrieve, ..."""
    shards: int
    """Of a first stage, those of the queries, which are done last."""
    shards_done: int
    tasks_done: dict[str, int] = {}
    """Of a first stage that is not complete: those of each of its steps."""
    pairs: int
    """Of all shards; of a first stage, the candidates that it finds at most; of a training, those that went
    through the network, and until it has finished those of full steps, which are the most."""
    rejected: dict[str, int] | None
    """Rows that can't be used, by reason: of the shards that are done. Null for a command other than rerank
    until it has finished."""
    quarantined: list[str]
    """Shards that were given up by the last start that finished, and are not done since."""
    dtypes: dict[str, str] = {}
    """In which each scorer computes, by its field of the config: what `auto` became."""
    host: str | None = None
    pid: int | None = None
    started: datetime | None = None
    last_heard: datetime | None = None
    pairs_per_s: float | None = None
    """Of this start; null until a shard is done."""
    seconds_left: float | None = None
    """At the pace of this start; null until a shard is done."""
    actor_pairs_per_s: float | None = None
    """Of an actor at work, over all starts of a rerank that has ended; null where its summary tells none."""
    actor_pairs_per_s_note: str = ""
    """Why that tells little: nearly all pairs were reused."""

    def lines(self) -> list[str]:
        share = self.shards_done / max(1, self.shards)
        lines = [
            f"state    {_state(self)}",
            f"shards   {self.shards_done} of {self.shards} done ({share:.1%})",
            f"pairs    {self.pairs} {self._of_pairs()}",
            *([f"tasks    done: {', '.join(self._steps())}"] if self.tasks_done else []),
            *self._left_out(),
            *(f"dtype    {dtype} ({scorer})" for scorer, dtype in self.dtypes.items()),
        ]
        if self.started is not None and self.last_heard is not None:
            lines.append(f"driver   process {self.pid} on {self.host}")
            lines.append(f"since    {_time(self.started)}, last heard {_time(self.last_heard)}")
        if self.pairs_per_s:
            left = ""
            if self.seconds_left and self.shards_done < self.shards:
                left = f", about {self.seconds_left / 60:.0f} minutes left"
            what = "candidates" if self.command == "retrieve" else "pairs"
            lines.append(f"speed    {self.pairs_per_s:.1f} {what}/s in this start{left}")
        if self.actor_pairs_per_s:
            lines.append(
                f"speed    {self.actor_pairs_per_s:.1f} pairs/s of an actor at work, over all starts"
                f" {self.actor_pairs_per_s_note}".rstrip()
            )
        lines += [f"damaged  {problem}" for problem in self.damaged[:_SHOWN]]
        if len(self.damaged) > _SHOWN:
            lines.append(f"damaged  and {len(self.damaged) - _SHOWN} more files; --json lists all")
        if self.damaged:
            lines.append("The same command, where need be with --check-bytes, makes what is damaged again")
        return lines

    def _of_pairs(self) -> str:
        if self.command == "retrieve":
            return "candidates at most"
        return "at most" if self.command == "finetune" and not self.complete else "in all"

    def _steps(self) -> Iterator[str]:
        return (f"{tasks} {step}" for step, tasks in self.tasks_done.items())

    def _left_out(self) -> Iterator[str]:
        if self.rejected is not None:
            reasons = ", ".join(f"{rows} {reason}" for reason, rows in self.rejected.items())
            yield f"rejected {_count(sum(self.rejected.values()), 'row')}{reasons and f' ({reasons})'}"
        if self.quarantined:
            more = len(self.quarantined) - _SHOWN
            names = ", ".join(self.quarantined[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
            yield f"given up {_count(len(self.quarantined), 'shard')} (quarantined): {names}"


class _Ended(BaseModel):
    """What of a summary is told here, whichever command wrote it."""

    rejected: dict[str, int]
    quarantined: list[Quarantined] = []
    actor_pairs_per_s: float | None = None
    pairs: int = 0
    reused: int = 0
    copies: int = 0


def read(output: Directory, now: datetime, *, check_bytes: bool = False) -> Status:
    """Where the job stands. Raises OutputError where there is none.

    check_bytes: a finished output's files are read; else their lengths are compared.
    """
    record = read_record(output)
    if record is None:
        raise OutputError(f"{output.url}: no output of a job (no _manifest in it)")
    heartbeat, complete = last_heartbeat(output), is_complete(output)
    done = names_done(output, ShardReport) if record.command == "rerank" else set()
    damaged = find_problems(output, check_bytes=check_bytes) if complete else missing_data(output, done)
    done = done.difference(problem.shard for problem in damaged)
    if record.command == "rerank":
        shards_done = len(done)
    else:
        shards_done = record.shards if complete else 0 if heartbeat is None else heartbeat.shards_done
    summary = _summary(output)
    has_ended = complete or (heartbeat is not None and heartbeat.state == "finished")
    trained = record.command == "finetune" and complete  # its last step may be a short one
    return Status(
        complete=complete and not damaged,
        damaged=[str(problem) for problem in damaged],
        command=record.command,
        shards=record.shards,
        shards_done=shards_done,
        tasks_done=_tasks_done(output) if record.command == "retrieve" and not complete else {},
        pairs=summary.pairs if trained and summary is not None else record.pairs,
        rejected=_rejected(output, record, done, summary if has_ended else None),
        quarantined=[]
        if summary is None
        else [shard.name for shard in summary.quarantined if shard.name not in done],
        dtypes=dtypes_of(record),
        **(_speed(summary) if has_ended and summary is not None else {}),
        **({} if heartbeat is None else _told(output, heartbeat, now)),
    )


def _tasks_done(output: Directory) -> dict[str, int]:
    """A task's name begins with its step's."""
    steps = [name.partition("-") for name in sorted(names_done(output, TaskReport))]
    return dict(Counter(step for step, dash, _ in steps if dash))


def _speed(summary: _Ended) -> dict[str, Any]:
    note = caveat(summary.pairs, summary.reused, summary.copies)
    return {"actor_pairs_per_s": summary.actor_pairs_per_s, "actor_pairs_per_s_note": note}


def _summary(output: Directory) -> _Ended | None:
    """Of the last start that finished; None where none has, or where it is damaged."""
    try:
        return _Ended.model_validate_json(output.read(SUMMARY) or b"")
    except ValidationError:
        return None


def _rejected(
    output: Directory, record: JobRecord, done: Collection[str], summary: _Ended | None
) -> dict[str, int] | None:
    """As the summary of a job that has ended tells, else as the markers of the shards that are done do."""
    if summary is not None:
        return summary.rejected
    if record.command != "rerank":
        return None
    rejected = Counter[str]()
    for found in markers(output, record.identity, done):
        if isinstance(found, ShardReport):
            rejected.update(found.counts.rejected)
    return dict(sorted(rejected.items()))


def _told(output: Directory, heartbeat: Heartbeat, now: datetime) -> dict[str, Any]:
    """What the last driver says of itself."""
    seconds = (heartbeat.time - heartbeat.started).total_seconds()
    done = heartbeat.shards_done - heartbeat.shards_done_before
    is_dead = heartbeat.state == "running" and is_silent(output, heartbeat, now)
    return {
        "state": "dead" if is_dead else heartbeat.state,
        "message": heartbeat.message,
        "host": heartbeat.machine,
        "pid": heartbeat.pid,
        "started": heartbeat.started,
        "last_heard": heartbeat.time,
        "pairs_per_s": heartbeat.pairs_done / seconds if heartbeat.pairs_done and seconds else None,
        "seconds_left": (heartbeat.shards - heartbeat.shards_done) / done * seconds if done > 0 else None,
    }


def _state(status: Status) -> str:
    if status.state == "dead":
        return "dead: its heartbeat has stopped. The same command goes on where it stopped"
    return f"{status.state}: {status.message}" if status.message else status.state


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


if __name__ == "__main__":
    sys.exit(main())
