"""Whether the scores of a previous run may be taken for this job's pairs, level by level."""

from collections.abc import Iterator
from typing import Any

from pipeline.errors import InputError
from pipeline.job_record import JobRecord, read_record, shown
from pipeline.output import read_summary
from pipeline.reporting.summary import Summary
from pipeline.tables.output.damage import SUMMARY
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import shard_names
from pipeline.tables.output.score_table import SCORE_ALL, WAY_OUT, PreviousScores
from pipeline.tables.schema import level_prefix

_SAME_SCORES = {"device", "max_batch_tokens"}
"""Options that move a score by no more than rounding does."""
_NOT_SETTLED = ("dtype", "auto")
"""In a dry run, which asks no actor: it may become the previous run's."""


class NotReusableError(InputError):
    """A run whose scores can't be taken. `why`: without the way out, which is for whoever named that run."""

    def __init__(self, why: str, way_out: str) -> None:
        super().__init__(f"reuse: {why}; {way_out}")
        self.args = (why, way_out)  # what unpickling hands to __init__
        self.why = why


def check_previous(url: str, now: JobRecord) -> None:
    """Raises NotReusableError where no finished run lies at `url`, or one without a scorer that `now` has."""
    before, _ = _finished(url)
    if any(prefix is not None for prefix in _prefixes(before, now)):
        return
    difference = next(_differences(before, now, next(iter(before.models)), next(iter(now.models))))
    raise NotReusableError(f"{Directory(url).url}: its scores are another scorer's ({difference})", SCORE_ALL)


def previous_prefixes(url: str, now: JobRecord) -> list[str | None]:
    """Of each level of `now`, the columns in the score table of the run at `url` that are the same scorer's.

    None where no scorer of that run is the same: the level scores every pair.
    """
    before, _ = _finished(url)
    return _prefixes(before, now)


def _prefixes(before: JobRecord, now: JobRecord) -> list[str | None]:
    found = []
    for name in now.models:
        same = (old for old in before.models if next(_differences(before, now, old, name), None) is None)
        found.append(next((_prefix(old) for old in same), None))
    return found


def _prefix(scorer: str) -> str:
    """scorer: `scorer`, or `levels.N.scorer`."""
    return level_prefix(int(scorer.split(".")[1])) if "." in scorer else ""


def _differences(before: JobRecord, now: JobRecord, old: str, new: str) -> Iterator[str]:
    """Between scorer `old` of the one and scorer `new` of the other, in words."""
    was, is_now = _options(before, old), _options(now, new)
    for name in sorted((was.keys() | is_now.keys()) - _SAME_SCORES):
        if was.get(name) != is_now.get(name) and (name, is_now.get(name)) != _NOT_SETTLED:
            yield f"{new}.{name} was {shown(was.get(name))}, is {shown(is_now.get(name))}"
    if before.models[old] != now.models[new]:
        yield "the model's weights or files differ"


def _options(record: JobRecord, scorer: str) -> dict[str, Any]:
    begin = f"{scorer}."
    return {
        name.removeprefix(begin): value for name, value in record.config.items() if name.startswith(begin)
    }


def previous_scores(url: str, now: JobRecord) -> PreviousScores:
    """Of the run at `url`. Raises InputError as `check_previous` does, and where some scores are missing."""
    check_previous(url, now)
    record, summary = _finished(url)
    given_up = {shard.name for shard in summary.quarantined}
    scored = [name for name in shard_names(record.shards) if name not in given_up]
    return PreviousScores.of(url, record.identity, scored)


def _finished(url: str) -> tuple[JobRecord, Summary]:
    output = Directory(url)
    record = read_record(output)
    if record is None or record.command != "rerank" or output.read(SUMMARY) is None:
        raise NotReusableError(
            f"{output.url}: no finished run (no {SUMMARY} of one in it)",
            f"finish that job first; or, {SCORE_ALL}",
        )
    summary = read_summary(output, Summary)
    if summary is None:
        raise NotReusableError(f"{output.url}/{SUMMARY}: is damaged", WAY_OUT)
    return record, summary
