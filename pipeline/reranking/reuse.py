"""Whether the scores of a previous run may be taken for this job's pairs."""

from pipeline.errors import InputError
from pipeline.output import JobRecord, read_record, read_summary
from pipeline.tables.output.directory import Directory

_SAME_SCORES = {"scorer.device", "scorer.max_batch_tokens"}
"""Options that move a score by no more than rounding does."""


def check_previous(url: str, now: JobRecord) -> None:
    """Raises InputError where no finished run lies at `url`, or one with another scorer than `now` has."""
    output = Directory(url)
    before = read_record(output)
    if before is None or before.command != now.command or read_summary(output) is None:
        raise InputError(
            f"reuse: {output.url}: no finished run (no summary.json of one in it); leave reuse out to score"
            " every pair"
        )
    fields = {name for record in (before, now) for name in record.config if name.startswith("scorer.")}
    for name in sorted(fields - _SAME_SCORES):
        old, new = before.config.get(name), now.config.get(name)
        if old != new:
            raise InputError(_other_scorer(output, f"{name} was {old!r}, is {new!r}"))
    if before.models != now.models:
        raise InputError(_other_scorer(output, "the model's weights or files differ"))


def _other_scorer(output: Directory, difference: str) -> str:
    return (
        f"reuse: {output.url}: its scores are another scorer's ({difference}); leave reuse out to score every"
        " pair"
    )
