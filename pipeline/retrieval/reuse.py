"""Whether the embeddings of an earlier first stage may be taken for this one's texts, source by source.

OUTPUT/_manifest/tasks/reuse.json   from where this job takes embeddings: its next start does, too
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline import log
from pipeline.errors import InputError
from pipeline.job_record import JobRecord, read_record, shown
from pipeline.output import is_complete
from pipeline.previous_run import NotReusableError, Told, latest, recorded
from pipeline.redaction import redacted
from pipeline.retrieval.config import source_of
from pipeline.retrieval.plan import Job
from pipeline.run_date import PREVIOUS_DATE
from pipeline.tables.output.damage import find_problems
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.done_marker import mark_done, read_marker
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.tasks import TaskReport

_SAME_EMBEDDINGS = {"device", "max_batch_tokens"}
"""Options that move an embedding by no more than rounding does."""
_EMBED_ALL = "leave reuse out to embed every text"
_TOLD = Told(
    taken="embeddings of an earlier first stage are taken",
    not_taken="first stage not taken for its embeddings",
    none="no earlier first stage to take embeddings from: every text is embedded",
)
_MARKER = "reuse"
_NOT_BEGUN = ""
"""No place: there is a search for one."""


def with_previous(job: Job, record: JobRecord) -> Job:
    """The job with a place, or none, in place of {previous_run_date}, and with what each source takes there.

    A job that has begun keeps the place that its first start found, or none: meanwhile an earlier date may
    have been finished. Raises InputError where nothing can be taken.
    """
    config = job.config
    assert config.reuse is not None  # as the caller has seen
    if not record.models:
        raise InputError(
            "reuse: no source of this config is dense, and only embeddings are reused; leave it out"
        )
    taken: dict[str, dict[str, str]] = {}

    def check(place: str) -> None:
        taken[place] = _same_sources(place, record)

    place: str | None = config.reuse
    begun = read_marker(job.output, TaskReport, record.identity, _MARKER)
    was = begun.result["place"] if isinstance(begun, TaskReport) else _NOT_BEGUN
    if was is None and PREVIOUS_DATE in config.reuse:
        log.info("this job has begun without an earlier first stage: every text is embedded")
        place = None
    elif was and (place := _recorded(config.reuse, was)) is not None:
        if read_record(Directory(place)) is None:  # it was kept for some nights alone
            log.warning(
                "the run that gave this job embeddings is gone: what is lacking is embedded", run=place
            )
            place = None
        else:
            check(place)
            log.info(_TOLD.taken, run=Directory(place).url)
    elif PREVIOUS_DATE not in config.reuse:
        check(config.reuse)
        place = config.reuse
    else:
        assert config.run_date is not None  # as the config checks
        place = latest(config.reuse, config.run_date, config.output.path, check, _TOLD)
    config = config.model_copy(update={"reuse": place})
    return replace(job, config=config, reused={} if place is None else taken[place])


def _recorded(reuse: str, was: str) -> str | None:
    return reuse if was == redacted(reuse) else recorded(reuse, was)


def remember(job: Job) -> None:
    """Write down from where the job, which now embeds, takes embeddings."""
    place = None if job.config.reuse is None else redacted(job.config.reuse)
    marker = TaskReport(
        format_version=FORMAT_VERSION, job=job.identity, name=_MARKER, result={"place": place}, files={}
    )
    mark_done(job.output, marker)


def _same_sources(url: str, now: JobRecord) -> dict[str, str]:
    """Dense source of `now` to a source of the first stage at `url` whose embeddings were made as its own.

    Raises NotReusableError where no finished first stage lies at `url`, or one without any such source, and
    InputError where it is damaged. The log tells which sources have none.
    """
    output = Directory(url)
    before = read_record(output)
    if before is None or before.command != now.command or not is_complete(output):
        raise NotReusableError(
            f"{output.url}: no finished first stage (no _SUCCESS of one in it)", _EMBED_ALL
        )
    if not before.models:
        raise NotReusableError(f"{output.url}: has no embeddings, since no source of it is dense", _EMBED_ALL)
    same, others = {}, {}
    for field in now.models:
        difference = {
            old: next(_differences(before, now, old, field), None)
            for old in sorted(before.models, key=lambda old: old != field)  # that of the same name first
        }
        found = next((old for old, differs in difference.items() if differs is None), None)
        if found is None:
            others[field] = next(iter(difference.values()))
        else:
            same[source_of(field)] = source_of(found)
    if not same:
        why = next(iter(others.values()))
        raise NotReusableError(f"{output.url}: its embeddings were made otherwise ({why})", _EMBED_ALL)
    for problem in find_problems(output):
        raise InputError(f"reuse: {output.url}/{problem}; run that first stage again, which mends it")
    for field, why in others.items():
        # A source that changed may be a mistake, which costs a night's work; a new one is as it should be.
        tell = log.warning if field in before.models else log.info
        tell("a source takes no embeddings: all its texts are embedded", source=source_of(field), why=why)
    return same


def _differences(before: JobRecord, now: JobRecord, old: str, new: str) -> Iterator[str]:
    """Between the source with scorer `old` of the one and that with scorer `new` of the other, in words."""
    theirs = "" if old == new else f" in its source {source_of(old)}"
    was, is_now = _options(before, old), _options(now, new)
    for name in sorted(was.keys() | is_now.keys()):
        # In a dry run, which asks no actor, `auto` may become the earlier one's.
        if was.get(name) != is_now.get(name) and (name, is_now.get(name)) != ("scorer.dtype", "auto"):
            field = f"{new.removesuffix('scorer')}{name}"
            yield f"{field} was {shown(was.get(name))}{theirs}, is {shown(is_now.get(name))}"
    if before.models[old] != now.models[new]:
        yield f"{new}: the model's weights or files differ{theirs}"


def _options(record: JobRecord, scorer: str) -> dict[str, Any]:
    """What a source's embeddings depend on."""
    begin = scorer.removesuffix("scorer")
    options = {
        name.removeprefix(begin): value for name, value in record.config.items() if name.startswith(begin)
    }
    return {name: value for name, value in options.items() if name.rpartition(".")[2] not in _SAME_EMBEDDINGS}
