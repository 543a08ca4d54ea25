"""Whether the embeddings of an earlier first stage may be taken for this one's texts."""

from dataclasses import replace

from pipeline.errors import InputError
from pipeline.job_record import JobRecord, read_record, shown
from pipeline.output import is_complete
from pipeline.previous_run import NotReusableError, Told, latest
from pipeline.retrieval.plan import Job
from pipeline.run_date import PREVIOUS_DATE
from pipeline.tables.output.damage import find_problems
from pipeline.tables.output.directory import Directory

_SAME_EMBEDDINGS = {"device", "max_batch_tokens"}
"""Options that move an embedding by no more than rounding does."""
_EMBED_ALL = "leave reuse out to embed every text"
_TOLD = Told(
    taken="embeddings of an earlier first stage are taken",
    not_taken="first stage not taken for its embeddings",
    none="no earlier first stage to take embeddings from: every text is embedded",
)


def with_previous(job: Job, record: JobRecord) -> Job:
    """The job with what it reuses checked, and with a place, or none, in place of {previous_run_date}.

    Raises InputError where nothing can be taken.
    """
    config = job.config
    assert config.reuse is not None  # as the caller has seen
    if not record.models:
        raise InputError(
            "reuse: no source of this config is dense, and only embeddings are reused; leave it out"
        )
    if PREVIOUS_DATE not in config.reuse:
        _check(config.reuse, record)
        return job
    assert config.run_date is not None  # as the config checks
    found = latest(
        config.reuse, config.run_date, config.output.path, lambda place: _check(place, record), _TOLD
    )
    return replace(job, config=config.model_copy(update={"reuse": found}))


def _check(url: str, now: JobRecord) -> None:
    """Raises NotReusableError where no finished first stage lies at `url`, or one with other embeddings, and
    InputError where it is damaged.
    """
    output = Directory(url)
    before = read_record(output)
    if before is None or before.command != now.command or not is_complete(output):
        raise NotReusableError(
            f"{output.url}: no finished first stage (no _SUCCESS of one in it)", _EMBED_ALL
        )
    for problem in find_problems(output):
        raise InputError(f"reuse: {output.url}/{problem}; run that first stage again, which mends it")
    for field in sorted(_fields(now) | {name for name in _fields(before) if _source(name) in _sources(now)}):
        old, new = before.config.get(field), now.config.get(field)
        # In a dry run, which asks no actor, `auto` may become the earlier one's.
        if old != new and not (field.endswith("scorer.dtype") and new == "auto"):
            raise _others(output, f"{field} was {shown(old)}, is {shown(new)}")
    for field, fingerprint in now.models.items():
        if before.models.get(field) != fingerprint:
            raise _others(output, f"{field}: the model's weights or files differ")


def _fields(record: JobRecord) -> set[str]:
    """What an embedding depends on."""
    named = {name for name in record.config if ".dense." in name}
    return {name for name in named if name.rpartition(".")[2] not in _SAME_EMBEDDINGS}


def _source(field: str) -> str:
    return field.partition(".dense.")[0]


def _sources(record: JobRecord) -> set[str]:
    return {_source(name) for name in _fields(record)}


def _others(output: Directory, difference: str) -> NotReusableError:
    return NotReusableError(f"{output.url}: its embeddings were made otherwise ({difference})", _EMBED_ALL)
