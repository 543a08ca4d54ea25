"""{run_date} in the places of a config: one config serves every date, and a table of a date may be late."""

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, model_validator

from pipeline.errors import LateError, NotThereError

DATE = "{run_date}"
PREVIOUS_DATE = "{previous_run_date}"
_PLACEHOLDER = re.compile(r"\{\w*\}")

IsPlace = Callable[[str], bool]
"""As `Dated.is_place`."""


def _read(value: Any) -> Any:
    """YAML reads 2026-11-20 as a date; quoted, and in JSON, it is a text."""
    if value is None or type(value) is date:
        return value
    if not (isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value)):
        raise ValueError("needs a date such as 2026-11-20")
    return date.fromisoformat(value)


RunDate = Annotated[date | None, BeforeValidator(_read)]
"""The type of a config's `run_date`."""


class Dated(BaseModel):
    """A config that has a `run_date`, which its places may name."""

    @classmethod
    @abstractmethod
    def is_place(cls, name: str) -> bool:
        """Whether a field, by its dotted name, says where things lie. A list counts its entries from 0."""

    @model_validator(mode="before")
    @classmethod
    def _date_the_places(cls, tree: Any) -> Any:
        return _filled_in(tree, cls.is_place)

    @model_validator(mode="after")
    def _places_are_filled_in(self) -> Self:
        _check_filled_in(self.model_dump(), self.is_place)
        return self


def _filled_in(tree: Any, is_place: IsPlace) -> Any:
    """What a config is made of, with its `run_date` in its places. Nobody has checked it yet.

    Raises ValueError where it has a date that no place uses.
    """
    given = tree.get("run_date") if isinstance(tree, dict) else None
    if given is None:
        return tree
    # In a job that was read back the date stands there already.
    found = [place for _, place in _places(tree, is_place)]
    # What is no {run_date} is named once all is checked.
    if not any(DATE in place or str(given) in place or _PLACEHOLDER.search(place) for place in found):
        raise ValueError(f"run_date: no path uses it; write {DATE} in output.path, or leave it out")
    return _filled(tree, str(given), is_place)


def _check_filled_in(tree: dict[str, Any], is_place: IsPlace) -> None:
    """Raises ValueError where a place has a placeholder that nothing fills in. tree: of a whole config."""
    for name, place in _places(tree, is_place):
        for placeholder in _PLACEHOLDER.findall(place):
            known = (DATE, PREVIOUS_DATE) if name == "reuse" else (DATE,)
            if placeholder not in known:
                raise ValueError(f"{name} {place}: there is no {placeholder}; write {' or '.join(known)}")
            if tree["run_date"] is None:
                raise ValueError(f"{name} {place} needs the date: --set run_date=2026-11-20")


@contextmanager
def late_tables(run_date: date | None) -> Iterator[None]:
    """NotThereError of a place that has the date in it is raised as LateError: to be late is no mistake
    of anybody's.
    """
    try:
        yield
    except NotThereError as error:
        if run_date is None or str(run_date) not in error.place:
            raise
        raise LateError(
            str(error),
            ". It is not there yet, since its path has the date: start again when it is written. If it was"
            " removed, no retry helps without it",
        ) from error


def _places(value: Any, is_place: IsPlace, name: str = "") -> Iterator[tuple[str, str]]:
    """Name and text."""
    if isinstance(value, str):
        if is_place(name):
            yield name, value
    else:
        for key, below in _entries(value):
            yield from _places(below, is_place, f"{name}.{key}".lstrip("."))


def _filled(value: Any, run_date: str, is_place: IsPlace, name: str = "") -> Any:
    if isinstance(value, str):
        return value.replace(DATE, run_date) if is_place(name) else value
    filled = {
        key: _filled(below, run_date, is_place, f"{name}.{key}".lstrip(".")) for key, below in _entries(value)
    }
    if isinstance(value, dict):
        return filled
    return type(value)(filled.values()) if isinstance(value, list | tuple) else value


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
