"""Which shards are done, and what became of each.

OUTPUT/_manifest/done/NAME.json   a shard's marker, written after its data: its report, and the files that it
                                  vouches for. Without them it does not count
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import InputError, OutputError
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import Marker, names_done, read_marker, whole, with_its_files
from pipeline.tables.output.manifest import Listing, Manifest, Problem, Stamps, in_threads
from pipeline.tables.output.run import MENDED, run_file
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.output.statistics import Distribution, Mover, RankChanges
from pipeline.tables.output.training_rows import FOLDER as TRAINING_ROWS
from pipeline.tables.output.training_rows import training_rows_file

FOLDERS = ("run", "rejects", "scores", TRAINING_ROWS)
"""Where a shard's files lie."""


def is_empty(value: Sequence[object] | int) -> bool:
    """Jobs with one scorer say nothing of levels, those without training rows nothing of these."""
    return not value


def shard_files(name: str) -> Iterator[str]:
    """All that a shard may write, by the names in the output."""
    yield from (f"{folder}/{name}.parquet" for folder in FOLDERS if folder != TRAINING_ROWS)
    yield training_rows_file(name)


class LevelCounts(BaseModel):
    """What one level of a cascade did for a shard, or for several; a job with one scorer has one level."""

    model_config = ConfigDict(frozen=True)

    pairs: int = 0
    """That it saw."""
    reused: int = 0
    copies: int = 0
    truncated: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    encode_s: float = 0
    score_s: float = 0

    def plus(self, other: "LevelCounts") -> "LevelCounts":
        return LevelCounts(**_sums(self, other, LevelCounts.model_fields))


class Counts(BaseModel):
    """What was done for one shard, or for several: all of it adds up."""

    model_config = ConfigDict(frozen=True)

    queries: int = 0
    pairs: int = 0
    """Scored. pairs + rejected + beyond_top_k = the rows of the input, and the lines of texts beside a TREC
    run that can't be used."""
    beyond_top_k: int = Field(default=0, exclude_if=is_empty)
    """Candidates that input.top_k left out."""
    reused: int = 0
    """Of `pairs`, those whose score was taken from a previous run; of a cascade, at its first level."""
    copies: int = 0
    """Of `pairs`, those whose score was taken from an equal pair of their shard; likewise."""
    kept: int = 0
    """Rows of the run, after top_k."""
    training_rows: int = Field(default=0, exclude_if=is_empty)
    no_training_row: int = Field(default=0, exclude_if=is_empty)
    """Queries without a positive or a negative, where training rows are written."""
    rejected: dict[str, int] = {}
    """Reason to rows."""
    truncated: int = 0
    """Pairs of which a model did not see all tokens."""
    tokens: int = 0
    """Real tokens that went through a model."""
    padded_tokens: int = 0
    """The same with padding."""
    encode_s: float = 0
    score_s: float = 0
    levels: tuple[LevelCounts, ...] = Field(default=(), exclude_if=is_empty)
    """Of a cascade, each level's own; then tokens and seconds above are those of all levels."""

    def plus(self, other: "Counts") -> "Counts":
        rejected = Counter(self.rejected) + Counter(other.rejected)
        levels = (
            tuple(mine.plus(theirs) for mine, theirs in zip(self.levels, other.levels, strict=True))
            if self.levels and other.levels
            else self.levels or other.levels
        )
        return Counts(**_sums(self, other, _NUMBERS), rejected=dict(sorted(rejected.items())), levels=levels)


_NUMBERS = tuple(name for name in Counts.model_fields if name not in ("rejected", "levels"))


def _sums(one: BaseModel, other: BaseModel, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(one, name) + getattr(other, name) for name in names}


class ShardReport(Marker):
    """What became of one shard."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    FOLDER: ClassVar[str] = "_manifest/done"
    NOUN: ClassVar[str] = "shard"

    fingerprint: str
    counts: Counts
    finished: datetime
    scores: Distribution
    best_scores: Distribution
    """Of the first rank of each query. Of a cascade, both are of the last level's scores."""
    level_scores: tuple[Distribution, ...] = Field(default=(), exclude_if=is_empty)
    """Of a cascade, each level's."""
    rank_changes: RankChanges
    movers: tuple[Mover, ...] = Field(default=(), exclude_if=is_empty)
    """The queries whose new first passage came from farthest below."""
    query_hashes: bytes
    """Of its queries, by which a later run finds their scores: `score_table`."""


def shard_names(count: int) -> list[str]:
    """Of all shards of a job that has so many."""
    return [Shard.model_construct(index=index).name for index in range(count)]


def markers(output: Directory, job: str, names: Iterable[str]) -> Iterator[ShardReport | Problem]:
    """The reports of these shards, or what is wrong with their markers, in the order of the names."""
    return in_threads(partial(read_marker, output, ShardReport, job), list(names))


def written_files(output: Directory, job: str, names: Iterable[str]) -> Iterator[Stamps]:
    """What each of these shards wrote. Raises InputError where one has no marker that names it."""
    for found in markers(output, job, names):
        if isinstance(found, Problem):
            raise InputError(f"{output.url}/{found}; {MENDED}")
        yield found.files


def all_files(output: Directory, manifest: Manifest) -> dict[str, Stamp]:
    """What a finished output holds. Raises as `written_files`."""
    files = dict(manifest.files)
    for of_shard in written_files(output, manifest.job, shard_names(manifest.shards)):
        files |= of_shard
    return files


def run_files(output: Directory, job: str, names: Sequence[str]) -> Iterator[tuple[str, Stamp]]:
    """The run's files of these shards. Raises as `written_files`."""
    for name, files in zip(names, written_files(output, job, names), strict=True):
        yield run_file(name), files[run_file(name)]


def done_shards(
    output: Directory, job: str, shards: Sequence[Shard], *, check_bytes: bool
) -> Iterator[ShardReport]:
    """The reports of the shards that need no work: those whose marker is of the very rows that they hold, and
    whose files are there as the marker names them. The log tells which shards are done again for damage.

    check_bytes: read all their files; else the files' lengths are compared. Raises OutputError for a file
    among theirs that is no shard's: readers would take it for a part of the run.
    """
    there, listing = names_done(output, ShardReport), Listing(output, FOLDERS)
    own = (file for shard in shards for file in shard_files(shard.name))
    for problem in listing.strangers(own, FOLDERS):
        raise OutputError(f"{output.url}/{problem}; remove it, and start again")
    marked = [shard for shard in shards if shard.name in there]
    looked_at = in_threads(partial(_look, output, job, listing, check_bytes=check_bytes), marked)
    yield from whole(output, ShardReport, filter(None, looked_at))


def _look(
    output: Directory, job: str, listing: Listing, shard: Shard, *, check_bytes: bool
) -> ShardReport | Problem | None:
    """As `with_its_files`; None of a marker of other content."""
    found = read_marker(output, ShardReport, job, shard.name)
    if isinstance(found, ShardReport) and found.fingerprint != shard.fingerprint:
        return None
    return with_its_files(output, listing, found, check_bytes=check_bytes)
