"""Whether the scores of a previous run may be taken for this job's pairs."""

from pipeline.errors import InputError
from pipeline.output import JobRecord, read_record, read_summary
from pipeline.reporting.summary import Summary
from pipeline.tables.output.damage import SUMMARY
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import shard_names
from pipeline.tables.output.score_table import WAY_OUT, PreviousScores

_SAME_SCORES = {"scorer.device", "scorer.max_batch_tokens"}
"""Options that move a score by no more than rounding does."""


def check_previous(url: str, now: JobRecord) -> None:
    """Raises InputError where no finished run lies at `url`, or one with another scorer than `now` has."""
    output = Directory(url)
    before, _ = _finished(url)
    fields = {name for record in (before, now) for name in record.config if name.startswith("scorer.")}
    for name in sorted(fields - _SAME_SCORES):
        old, new = before.config.get(name), now.config.get(name)
        if old != new:
            raise InputError(_other_scorer(output, f"{name} was {old!r}, is {new!r}"))
    if before.models != now.models:
        raise InputError(_other_scorer(output, "the model's weights or files differ"))


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
        raise InputError(
            f"reuse: {output.url}: no finished run (no {SUMMARY} of one in it); leave reuse out to score"
            " every pair"
        )
    summary = read_summary(output, Summary)
    if summary is None:
        raise InputError(f"reuse: {output.url}/{SUMMARY}: is damaged; {WAY_OUT}")
    return record, summary


def _other_scorer(output: Directory, difference: str) -> str:
    return (
        f"reuse: {output.url}: its scores are another scorer's ({difference}); leave reuse out to score every"
        " pair"
    )
