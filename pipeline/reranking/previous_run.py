"""Which run `reuse` means where it has {previous_run_date}: a schedule keeps one config for every night."""

import re
from dataclasses import replace
from datetime import date

from pipeline import log
from pipeline.errors import OtherFormatError
from pipeline.job_record import JobRecord
from pipeline.redaction import redacted
from pipeline.reranking.config import PREVIOUS_DATE, RerankConfig
from pipeline.reranking.reuse import NotReusableError, check_previous, previous_prefixes, previous_scores
from pipeline.reranking.shard import Job
from pipeline.tables.output.directory import Directory

_A_DATE = r"\d{4}-\d\d-\d\d"


def with_previous_date(config: RerankConfig, record: JobRecord, begun: JobRecord | None) -> RerankConfig:
    """The config with a finished run's place as `reuse`, or with none; itself without {previous_run_date}.

    It is the latest run there of a date before the job's own which is finished and has a scorer of the job's.
    The log names it, and why later ones were not taken. Runs that can't be read are no reason to go on
    without: these raise OutputError, or TemporaryError.

    begun: the job whose results lie in the output. It keeps the run that its first start found, or none:
    meanwhile an earlier date may have been finished.
    """
    if config.reuse is None or PREVIOUS_DATE not in config.reuse:
        return config
    assert config.run_date is not None  # as the config checks
    template = config.reuse
    was = None if begun is None else begun.config.get("reuse")
    if begun is not None and was is None:
        found = None
    else:
        found = _date_in(was or "", template) or _latest(config, template, config.run_date, record)
    return config.model_copy(update={"reuse": found and template.replace(PREVIOUS_DATE, found)})


def with_previous(job: Job, record: JobRecord) -> Job:
    """The job with the scores that it reuses, where it reuses any."""
    if job.config.reuse is None:
        return job
    previous = previous_scores(job.config.reuse, record)
    return replace(
        job, previous=lambda: previous, previous_prefixes=previous_prefixes(job.config.reuse, record)
    )


def _date_in(recorded: str, template: str) -> str | None:
    """What stands in a record's `reuse` for the placeholder; None where that is another place."""
    dates = re.findall(_A_DATE, recorded)
    return next((day for day in dates if redacted(template.replace(PREVIOUS_DATE, day)) == recorded), None)


def _latest(config: RerankConfig, template: str, before: date, record: JobRecord) -> str | None:
    """The date of the run to take; None where there is none."""
    dates = sorted(_dates(template, before), reverse=True)
    for found in dates:
        url = template.replace(PREVIOUS_DATE, found)
        try:
            check_previous(url, record)
        except NotReusableError as error:
            log.info("run not taken for its scores", why=error.why)
            continue
        except OtherFormatError as error:
            log.info("run not taken for its scores", why=error)
            continue
        log.info("scores of a previous run are taken", run=Directory(url).url)
        return found
    # The first night of a job that reuses its own scores is as it should be. Else it may be a mistake, which
    # costs a night's work.
    own = Directory(template.replace(PREVIOUS_DATE, str(before))).url == Directory(config.output.path).url
    what = "no previous run to take scores from: every pair is scored"
    if dates:
        log.warning(what, reuse=template)
    elif own:
        log.info(what, reuse=template)
    else:
        log.warning(what, reuse=template, why="nothing lies there, and it is not output.path: is it right?")
    return None


def _dates(template: str, before: date) -> set[str]:
    """The dates for which there is something at the template's place, whatever it is."""
    head, _, tail = template.partition(PREVIOUS_DATE)
    parent, slash, begin = head.rpartition("/")
    name = f"{begin}{PREVIOUS_DATE}{tail.partition('/')[0]}"
    there = Directory(f"{parent}{slash}" or ".").names()
    found = {
        day
        for entry in there
        for day in re.findall(_A_DATE, entry)
        if name.replace(PREVIOUS_DATE, day) == entry
    }
    return {day for day in found if day < str(before)}
