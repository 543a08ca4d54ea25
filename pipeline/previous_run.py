"""Which output `reuse` means where it has {previous_run_date}: one config serves every night."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from pipeline import log
from pipeline.errors import InputError, OtherFormatError
from pipeline.redaction import redacted
from pipeline.run_date import PREVIOUS_DATE
from pipeline.tables.output.directory import Directory

_A_DATE = r"\d{4}-\d\d-\d\d"


class NotReusableError(InputError):
    """An output from which nothing can be taken. `why`: without the way out, which is for who named it."""

    def __init__(self, why: str, way_out: str) -> None:
        super().__init__(f"reuse: {why}; {way_out}")
        self.args = (why, way_out)  # what unpickling hands to __init__
        self.why = why


@dataclass(frozen=True)
class Told:
    """What the log says, in the words of a command."""

    taken: str
    not_taken: str
    none: str


def recorded(template: str, record: str) -> str | None:
    """The place that a record's `reuse` is, if it is the template with a date; None where it is another."""
    places = (template.replace(PREVIOUS_DATE, day) for day in re.findall(_A_DATE, record))
    return next((place for place in places if redacted(place) == record), None)


def latest(template: str, before: date, output: str, check: Callable[[str], None], told: Told) -> str | None:
    """The place of the latest date before `before` that `check` lets pass; None where there is none.

    The log names it, and why the latest of those that were passed over was not taken. What can't be read is
    no reason to go on without: it raises OutputError, or TemporaryError.

    template: with {previous_run_date}. output: where the job writes. check: raises NotReusableError for a
    place to pass over.
    """
    passed_over: list[str] = []
    taken = None
    for found in sorted(_dates(template, before), reverse=True):
        place = template.replace(PREVIOUS_DATE, found)
        try:
            check(place)
        except NotReusableError as error:
            passed_over.append(error.why)
        except OtherFormatError as error:
            passed_over.append(str(error))
        else:
            taken = place
            break
    if passed_over:  # one line: there may be a year of nights with another scorer
        log.info(told.not_taken, why=passed_over[0], older_ones=len(passed_over) - 1)
    if taken is not None:
        log.info(told.taken, run=Directory(taken).url)
        return taken
    # The first night of a job that reuses its own output is as it should be. Else it may be a mistake, which
    # costs a night's work.
    own = Directory(template.replace(PREVIOUS_DATE, str(before))).url == Directory(output).url
    if passed_over:
        log.warning(told.none, reuse=template, there=f"{len(passed_over)}, none that can be taken")
    elif own:
        log.info(told.none, reuse=template)
    else:
        log.warning(
            told.none, reuse=template, why="nothing lies there, and it is not output.path: is it right?"
        )
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
