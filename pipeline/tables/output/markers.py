"""The output directory's memory: which job it is for, and which shards are done.

OUTPUT/_manifest/plan.json        the job: config, model, the files of the input
OUTPUT/_manifest/done/NAME.json   a shard's marker, written after its data: its report
OUTPUT/summary.json  _SUCCESS     written last; _SUCCESS once all shards have their marker
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import OutputError
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.statistics import Distribution, RankChanges

_PLAN, _DONE = "_manifest/plan.json", "_manifest/done"
_READ_THREADS, _READ_AT_ONCE = 16, 1024


class JobRecord(BaseModel):
    """What makes two starts the same job, and how large it is."""

    model_config = ConfigDict(frozen=True)

    shards: int
    pairs: int
    config: dict[str, Any]
    """Dotted field to value: all that the output depends on."""
    model_fingerprint: str
    files: dict[str, str]
    """The input's files with their identities."""


class ShardReport(BaseModel):
    """What became of one shard. It is the marker's content, and what the driver hears."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    name: str
    fingerprint: str
    queries: int
    pairs: int
    """Scored. pairs + rejected = the rows of the input."""
    reused: int
    """Of `pairs`, those whose score was taken from a previous run."""
    kept: int
    """Rows of the run, after top_k."""
    rejected: dict[str, int]
    truncated: int
    tokens: int
    padded_tokens: int
    encode_s: float
    score_s: float
    finished: datetime
    scores: Distribution
    best_scores: Distribution
    """Of the first rank of each query."""
    rank_changes: RankChanges
    query_hashes: bytes
    """Of its queries, by which a later run finds their scores: `score_table`."""


def open_output(output: Directory, record: JobRecord) -> None:
    """Make the directory this job's, or see that it already is. Raises OutputError as `check_output` does."""
    if check_output(output, record) is None:
        output.write(_PLAN, _json(record))


def check_output(output: Directory, record: JobRecord) -> JobRecord | None:
    """The job whose output the directory holds, which must be this one; None where it holds none yet.

    Raises OutputError where it holds something else, another job's output or files of unknown origin, saying
    what differs.
    """
    before = read_record(output)
    if before is None:
        # A start that was killed before its plan was written leaves an empty manifest.
        if strange := sorted(output.names() - {"_manifest"}):
            raise OutputError(f"{output.url}: not empty, and no output of this program (holds {strange[0]})")
        return None
    differences = list(_differences(before, record))
    if differences and not any(output.names(subdirectory) for subdirectory in (_DONE, "run", "rejects")):
        return None  # an attempt that got nowhere: nothing here to damage
    if differences:
        shown = "\n".join(f"  {line}" for line in differences[:10])
        more = f"\n  and {len(differences) - 10} more" if len(differences) > 10 else ""
        raise OutputError(
            f"{output.url}: holds the output of another job, or of an earlier state of this one:\n{shown}"
            f"{more}\nTake another output.path, or remove the directory"
        )
    return before


def read_record(output: Directory) -> JobRecord | None:
    """The job whose output this is; None where there is none. Raises OutputError for another version's."""
    written = output.read(_PLAN)
    try:
        return None if written is None else JobRecord.model_validate_json(written)
    except ValidationError as error:
        raise OutputError(
            f"{output.url}/{_PLAN}: not readable by this version; take another output.path"
        ) from error


def count_done(output: Directory) -> int:
    return sum(name.endswith(".json") for name in output.names(_DONE))


def markers(output: Directory) -> Iterator[ShardReport]:
    """The reports of all shards that have a marker, by name, without a look at what they hold."""
    names = sorted(output.names(_DONE))
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        for start in range(0, len(names), _READ_AT_ONCE):
            some = names[start : start + _READ_AT_ONCE]
            yield from filter(None, threads.map(lambda name: _read_marker(output, name), some))


def done_shards(output: Directory, shards: tuple[Shard, ...]) -> Iterator[ShardReport]:
    """The reports of the shards that need no work. A large job has many: they are not all held at once."""
    names = output.names(_DONE)
    marked = [shard for shard in shards if f"{shard.name}.json" in names]
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        for start in range(0, len(marked), _READ_AT_ONCE):
            some = marked[start : start + _READ_AT_ONCE]
            reports = threads.map(lambda shard: _read_marker(output, f"{shard.name}.json"), some)
            for shard, report in zip(some, reports, strict=True):
                if report is not None and report.fingerprint == shard.fingerprint:
                    yield report


def check_all_done(output: Directory, shards: tuple[Shard, ...]) -> None:
    """Raises OutputError where a shard that was reported done has no marker here."""
    names = output.names(_DONE)
    missing = [shard.name for shard in shards if f"{shard.name}.json" not in names]
    if missing:
        raise OutputError(
            f"{output.url}: {len(missing)} of {len(shards)} shards were written, but not here ({missing[0]})."
            " On a cluster of several nodes the output must be in an object store, or in a directory that all"
            " nodes share"
        )


def mark_done(output: Directory, report: ShardReport) -> None:
    output.write(f"{_DONE}/{report.name}.json", report.model_dump_json().encode())


def _read_marker(output: Directory, name: str) -> ShardReport | None:
    try:
        return ShardReport.model_validate_json(output.read(f"{_DONE}/{name}") or b"")
    except ValidationError:
        return None


def _differences(before: JobRecord, now: JobRecord) -> Iterator[str]:
    for field in sorted(before.config.keys() | now.config.keys()):
        old, new = before.config.get(field), now.config.get(field)
        if old != new:
            yield f"{field}: was {json.dumps(old)}, is {json.dumps(new)}"
    if before.model_fingerprint != now.model_fingerprint:
        yield f"the model's weights or files: were {before.model_fingerprint}, are {now.model_fingerprint}"
    for file in sorted(before.files.keys() | now.files.keys()):
        old, new = before.files.get(file), now.files.get(file)
        if old is None:
            yield f"{file}: is new"
        elif old != new:
            yield f"{file}: was {old}, is {new or 'gone'}"


def _json(model: BaseModel) -> bytes:
    return model.model_dump_json(indent=2).encode()
