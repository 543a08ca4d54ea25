"""Measures by ir_measures' names, and a run's value of each for each query."""

import re
import subprocess
from collections.abc import Iterable

import ir_measures
from ir_measures import Measure, Qrel, ScoredDoc

from pipeline.errors import ConfigError
from pipeline.evaluation.runs import RunRow
from pipeline.tables.input.qrels import LARGEST_RELEVANCE

DEFAULT_MEASURES = "nDCG@10 RR@10 AP R@10"

_MEANINGS = {
    "nDCG": "Normalized discounted cumulative gain: how near the order is to the best one, which has 1",
    "RR": "Reciprocal rank: 1 divided by the rank of the first relevant passage",
    "AP": "Average precision: the share of relevant passages down to each relevant one, on average",
    "R": "Recall: the share of the relevant passages that the run has",
    "P": "Precision: the share of the passages that are relevant",
    "Success": "Success: 1 where there is a relevant passage, else 0",
}
_BETWEEN = re.compile(r"[\s,]+(?![^()]*\))")
"""Not inside of the parentheses of one that has parameters: `P(rel=2, judged_only=True)@5`."""

Values = dict[str, dict[str, float]]
"""By measure, by query."""


_WHOLE_NUMBERS, _LARGEST = ("cutoff", "rel"), 2**31 - 1
"""Parameters that are 1 or more, and an integer of C's: trec_eval ends the process at a cutoff of 0."""


def parse_measures(names: str) -> list[Measure]:
    """names: with blanks or commas between them. Raises ConfigError for one that is not known, that lacks a
    parameter, or has one that can't be.
    """
    try:
        parsed = [ir_measures.parse_measure(name) for name in _BETWEEN.split(names) if name]
    except (ValueError, NameError, SyntaxError) as error:
        raise ConfigError(f"measures {names!r}: {error}; write them as in `{DEFAULT_MEASURES}`") from error
    for measure in parsed:
        for name, parameter in measure.SUPPORTED_PARAMS.items():
            if parameter.required and name not in measure.params:
                raise ConfigError(f"measures {names!r}: {measure} needs a {name}: write it as in `R@10`")
        _check_values(names, measure)
    if not parsed:
        raise ConfigError(f"measures: none given; write them as in `{DEFAULT_MEASURES}`")
    return list(dict.fromkeys(parsed))


def _check_values(names: str, measure: Measure) -> None:
    for name, value in measure.params.items():
        if name in _WHOLE_NUMBERS and (type(value) is not int or not 1 <= value <= _LARGEST):
            raise ConfigError(
                f"measures {names!r}: {measure} has a {name} of {value!r}; it is a whole number, 1 to"
                f" {_LARGEST}"
            )
        if name == "gains" and not _are_gains(value):
            raise ConfigError(
                f"measures {names!r}: {measure} has gains of {value!r}; they map relevances to gains, as in"
                f" {{1: 3, 2: 7}}, all of them whole numbers up to {LARGEST_RELEVANCE:,}"
            )
        if name == "recall" and not (type(value) is float and 0 <= value <= 1):
            raise ConfigError(
                f"measures {names!r}: {measure} has a recall of {value!r}; it is between 0.0 and 1.0, with"
                " a point"
            )


def _are_gains(value: object) -> bool:
    """pytrec_eval hangs on keys that are no integers."""
    if not isinstance(value, dict):
        return False
    return all(
        type(each) is int and abs(each) <= LARGEST_RELEVANCE for each in (*value.keys(), *value.values())
    )


def cutoff_of(measure: Measure) -> int | None:
    """How many passages a query it looks at; None where it looks at all."""
    cutoff = measure.params.get("cutoff")
    return cutoff if isinstance(cutoff, int) else None


def meaning_of(name: str) -> str:
    """What a measure tells, for people who don't know it; empty for the rarer ones."""
    base, _, depth = name.partition("@")
    told = _MEANINGS.get(base, "")
    return f"{told}. Of the first {depth} passages" if told and depth else told


def values_of(measures: list[Measure], judgments: list[Qrel], rows: Iterable[RunRow]) -> Values:
    """Of one run. A judged query that it lacks has none. Raises ConfigError where one can't be computed."""
    values: Values = {str(measure): {} for measure in measures}
    # By numbers, as gdeval.pl takes no other ids, and of `a-1` the 1 alone.
    numbers: dict[str, str] = {}
    judged = [each._replace(query_id=_number(each.query_id, numbers)) for each in judgments]
    documents = [ScoredDoc(_number(row.query_id, numbers), row.passage_id, row.score) for row in rows]
    query_ids = {number: query_id for query_id, number in numbers.items()}
    try:
        for metric in ir_measures.iter_calc(measures, judged, documents):
            values[str(metric.measure)][query_ids[metric.query_id]] = metric.value
    except subprocess.CalledProcessError as error:  # of the only script among the tools
        raise ConfigError(
            f"measures {' '.join(values)}: can't all be computed here: gdeval.pl, which computes ERR"
            " and nDCG(dcg='exp-log2'), takes no judgment above 4, no iteration but 0, and no id with a blank"
        ) from error
    except Exception as error:  # the tools that ir_measures calls for rarer measures fail each in their way
        raise ConfigError(f"measures {' '.join(values)}: can't all be computed here: {error}") from error
    return values


def _number(query_id: str, numbers: dict[str, str]) -> str:
    return numbers.setdefault(query_id, str(len(numbers) + 1))
