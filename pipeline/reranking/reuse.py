"""Whether the scores of a previous run may be taken for this job's pairs, level by level."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline import log
from pipeline.job_record import JobRecord, read_record, shown
from pipeline.output import read_summary
from pipeline.previous_run import NotReusableError, Told, latest, recorded
from pipeline.reporting.summary import Summary
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.shard import Job
from pipeline.run_date import PREVIOUS_DATE
from pipeline.tables.output.damage import SUMMARY
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import shard_names
from pipeline.tables.output.score_table import SCORE_ALL, WAY_OUT, PreviousScores
from pipeline.tables.schema import level_prefix

_SAME_SCORES = {"device", "max_batch_tokens"}
"""Options that move a score by no more than rounding does."""
_FEW = 0.5
"""A previous run with less than this share of the job's pairs is told: it may be of a test table."""
_NOT_SETTLED = ("dtype", "auto")
"""In a dry run, which asks no actor: it may become the previous run's."""
_TOLD = Told(
    taken="scores of a previous run are taken",
    not_taken="run not taken for its scores",
    none="no previous run to take scores from: every pair is scored",
)


def with_previous_date(config: RerankConfig, record: JobRecord, begun: JobRecord | None) -> RerankConfig:
    """The config with a finished run's place as `reuse`, or with none; itself without {previous_run_date}.

    It is the latest run there of a date before the job's own which is finished and has a scorer of the job's.

    begun: the job whose results lie in the output. It keeps the run that its first start found, or none:
    meanwhile an earlier date may have been finished.
    """
    if config.reuse is None or PREVIOUS_DATE not in config.reuse:
        return config
    assert config.run_date is not None  # as the config checks
    if begun is not None:
        was = begun.config.get("reuse")
        found = None if was is None else recorded(config.reuse, was)
        if was is None or found is not None:
            return config.model_copy(update={"reuse": found})
    found = latest(
        config.reuse,
        config.run_date,
        config.output.path,
        lambda place: check_previous(place, record),
        _TOLD,
    )
    if found is not None:
        _warn_of_few(found, record)
    return config.model_copy(update={"reuse": found})


def _warn_of_few(found: str, now: JobRecord) -> None:
    """An odd night would cost the next one nearly all scores, which an older run may have."""
    before, _ = _finished(found)
    if before.pairs < _FEW * now.pairs:
        log.warning(
            "the previous run has few pairs: most of this job's may have to be scored; --set reuse=OUTPUT"
            " names an older run",
            run=Directory(found).url,
            its_pairs=before.pairs,
            pairs=now.pairs,
        )


def with_previous(job: Job, record: JobRecord) -> Job:
    """The job with the scores that it reuses, where it reuses any."""
    if job.config.reuse is None:
        return job
    previous = _previous_scores(job.config.reuse, record)
    prefixes = _prefixes(_finished(job.config.reuse)[0], record)
    return replace(job, previous=lambda: previous, previous_prefixes=prefixes)


def check_previous(url: str, now: JobRecord) -> None:
    """Raises NotReusableError where no finished run lies at `url`, or one without a scorer that `now` has."""
    before, _ = _finished(url)
    if any(prefix is not None for prefix in _prefixes(before, now)):
        return
    difference = next(_differences(before, now, next(iter(before.models)), next(iter(now.models))))
    raise NotReusableError(f"{Directory(url).url}: its scores are another scorer's ({difference})", SCORE_ALL)


def _prefixes(before: JobRecord, now: JobRecord) -> list[str | None]:
    """Of each level of `now`, the columns in the score table of `before` that are the same scorer's; None
    where no scorer is the same: the level scores every pair.
    """
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


def _previous_scores(url: str, now: JobRecord) -> PreviousScores:
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
