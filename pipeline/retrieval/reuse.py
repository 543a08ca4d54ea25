"""Whether the embeddings of an earlier first stage may be taken for this one's texts."""

from pipeline.errors import InputError
from pipeline.job_record import JobRecord, read_record, shown
from pipeline.output import is_complete
from pipeline.tables.output.damage import find_problems
from pipeline.tables.output.directory import Directory

_SAME_EMBEDDINGS = {"device", "max_batch_tokens"}
"""Options that move an embedding by no more than rounding does."""


def check_previous(url: str, now: JobRecord) -> None:
    """Raises InputError where no finished first stage lies at `url`, or one whose embeddings are others."""
    output = Directory(url)
    before = read_record(output)
    if before is None or before.command != now.command or not is_complete(output):
        raise InputError(
            f"reuse: {output.url}: no finished first stage (no _SUCCESS of one in it); leave reuse out to"
            " embed every text"
        )
    for problem in find_problems(output):
        raise InputError(f"reuse: {output.url}/{problem}; run that first stage again, which mends it")
    if not now.models:
        raise InputError(
            "reuse: no source of this config is dense, and only embeddings are reused; leave it out"
        )
    for field in sorted(_fields(now) | {name for name in _fields(before) if _source(name) in _sources(now)}):
        old, new = before.config.get(field), now.config.get(field)
        # In a dry run, which asks no actor, `auto` may become the earlier one's.
        if old != new and not (field.endswith("scorer.dtype") and new == "auto"):
            raise InputError(_others(output, f"{field} was {shown(old)}, is {shown(new)}"))
    for field, fingerprint in now.models.items():
        if before.models.get(field) != fingerprint:
            raise InputError(_others(output, f"{field}: the model's weights or files differ"))


def _fields(record: JobRecord) -> set[str]:
    """What an embedding depends on."""
    named = {name for name in record.config if ".dense." in name}
    return {name for name in named if name.rpartition(".")[2] not in _SAME_EMBEDDINGS}


def _source(field: str) -> str:
    return field.partition(".dense.")[0]


def _sources(record: JobRecord) -> set[str]:
    return {_source(name) for name in _fields(record)}


def _others(output: Directory, difference: str) -> str:
    return (
        f"reuse: {output.url}: its embeddings were made otherwise ({difference}); leave reuse out to embed"
        " every text"
    )
