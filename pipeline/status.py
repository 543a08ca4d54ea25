"""How far a job is, running or dead: `python -m pipeline.status --output out/demo`.

Told from the markers alone, wherever the job runs. Exit status: 0; 2 where there is no job's output.
"""

import argparse
import sys
from datetime import UTC, datetime

from pipeline.errors import OutputError, RayrankError
from pipeline.tables.lease import Beat, is_silent, last_beat
from pipeline.tables.manifest import count_done, read_record
from pipeline.tables.storage import Directory

TOLD, FAILED_BY_USER = 0, 2


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.status",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", required=True, help="output.path of the job")
    options = parser.parse_args(arguments)
    try:
        print("\n".join(describe(Directory(options.output), datetime.now(UTC))))
    except RayrankError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED_BY_USER
    return TOLD


def describe(output: Directory, now: datetime) -> list[str]:
    """The job in a few lines. Raises OutputError where there is none."""
    record, beat = read_record(output), last_beat(output)
    if record is None or beat is None:
        raise OutputError(f"{output.url}: no output of a job (no _manifest in it)")
    done = count_done(output)
    share = done / max(1, record.shards)
    lines = [
        f"state    {_state(beat, now)}",
        f"shards   {done} of {record.shards} done ({share:.1%})",
        f"pairs    {record.pairs} in all",
        f"driver   process {beat.pid} on {beat.host}",
        f"since    {_time(beat.started)}, last heard {_time(beat.time)}",
    ]
    seconds = (beat.time - beat.started).total_seconds()
    if beat.pairs_done and seconds:
        speed = beat.pairs_done / seconds
        left_min = (1 - share) * record.pairs / speed / 60
        left = f", about {left_min:.0f} minutes left" if done < record.shards else ""
        lines.append(f"speed    {speed:.1f} pairs/s in this start{left}")
    return lines


def _state(beat: Beat, now: datetime) -> str:
    if beat.state == "running" and is_silent(beat, now):
        return "dead: it says it runs, but is silent. The same command goes on where it stopped"
    return f"{beat.state}: {beat.message}" if beat.message else beat.state


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


if __name__ == "__main__":
    sys.exit(main())
