"""Which shards are done, and what became of each.

OUTPUT/_manifest/done/NAME.json   a shard's marker, written after its data: its report
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.tables.input.shards import Shard
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.statistics import Distribution, RankChanges

DONE = "_manifest/done"
_READ_THREADS, _READ_AT_ONCE = 16, 1024


class Counts(BaseModel):
    """What was done for one shard, or for several: all of it adds up."""

    model_config = ConfigDict(frozen=True)

    queries: int = 0
    pairs: int = 0
    """Scored. pairs + rejected = the rows of the input."""
    reused: int = 0
    """Of `pairs`, those whose score was taken from a previous run."""
    copies: int = 0
    """Of `pairs`, those whose score was taken from an equal pair of their shard."""
    kept: int = 0
    """Rows of the run, after top_k."""
    rejected: dict[str, int] = {}
    """Reason to rows."""
    truncated: int = 0
    """Pairs of which the model did not see all tokens."""
    tokens: int = 0
    """Real tokens that went through the model."""
    padded_tokens: int = 0
    """The same with padding."""
    encode_s: float = 0
    score_s: float = 0

    def plus(self, other: "Counts") -> "Counts":
        sums = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        rejected = Counter(self.rejected) + Counter(other.rejected)
        return Counts(**sums, rejected=dict(sorted(rejected.items())))

    @property
    def rows(self) -> int:
        """Rows of the input."""
        return self.pairs + sum(self.rejected.values())


_NUMBERS = tuple(name for name in Counts.model_fields if name != "rejected")


class ShardReport(BaseModel):
    """What became of one shard. It is the marker's content, and what the driver hears."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64", val_json_bytes="base64")

    format_version: int
    name: str
    fingerprint: str
    counts: Counts
    finished: datetime
    scores: Distribution
    best_scores: Distribution
    """Of the first rank of each query."""
    rank_changes: RankChanges
    query_hashes: bytes
    """Of its queries, by which a later run finds their scores: `score_table`."""


def mark_done(output: Directory, report: ShardReport) -> None:
    output.write(f"{DONE}/{report.name}.json", report.model_dump_json().encode())


def names_done(output: Directory) -> set[str]:
    """The names of the shards that have a marker, whatever it holds."""
    return {name.removesuffix(".json") for name in output.names(DONE) if name.endswith(".json")}


def markers(output: Directory) -> Iterator[ShardReport]:
    """The reports of all shards that have a marker, by name."""
    yield from _read_markers(output, sorted(names_done(output)))


def done_shards(output: Directory, shards: tuple[Shard, ...]) -> Iterator[ShardReport]:
    """The reports of the shards that need no work: those whose marker is of the very rows that they hold."""
    there = names_done(output)
    fingerprints = {shard.name: shard.fingerprint for shard in shards if shard.name in there}
    for report in _read_markers(output, list(fingerprints)):
        if report.fingerprint == fingerprints[report.name]:
            yield report


def _read_markers(output: Directory, names: list[str]) -> Iterator[ShardReport]:
    """A large job has many markers: they are not all held at once. One that is broken, or of another format,
    counts as none.
    """
    with ThreadPoolExecutor(_READ_THREADS) as threads:
        for start in range(0, len(names), _READ_AT_ONCE):
            reports = threads.map(
                lambda name: _read_marker(output, name), names[start : start + _READ_AT_ONCE]
            )
            yield from filter(None, reports)


def _read_marker(output: Directory, name: str) -> ShardReport | None:
    try:
        report = ShardReport.model_validate_json(output.read(f"{DONE}/{name}.json") or b"")
    except ValidationError:
        return None
    return report if (report.name, report.format_version) == (name, FORMAT_VERSION) else None
