"""The page that shows which queries moved and why: one HTML file that holds all it shows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import reporting
from pipeline.evaluation.comparison import CONDENSED, Evaluation
from pipeline.evaluation.measures import meaning_of
from pipeline.evaluation.runs import RunRow
from pipeline.evaluation.texts import Texts
from pipeline.redaction import redacted

DEPTH = 10
"""Passages of each run that a query shows."""
_TEXT_CHARS, _LEAST_TEXT_CHARS = 2_000, 120
_ALL_TEXT_CHARS = 24_000_000
"""About the characters of texts that a page holds: a browser opens it within a second or two."""
_QUERY_CHARS = 400
_CHANCE = 0.05
"""A change whose p (Holm) is below this is told as a difference."""


def passages_shown(found: Evaluation) -> dict[str, list[str]]:
    """By query, the passages at the top of any run, each once."""
    return {
        query_id: list(
            dict.fromkeys(
                row.passage_id
                for each in found.all_measured
                for row in each.system.ranking.get(query_id, [])[:DEPTH]
            )
        )
        for query_id in found.query_ids
    }


def page(found: Evaluation, qrels: str, texts: Texts | None) -> str:
    """texts: of the queries and of `passages_shown`; None: ids alone are shown."""
    shown, known = passages_shown(found), texts or Texts()
    chars = _text_chars(sum(map(len, shown.values())))
    template = Environment(
        loader=FileSystemLoader([Path(__file__).parent, *reporting.__path__]),
        autoescape=True,  # the page's name would not tell that it is HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("compare.html.jinja")
    cut = any(len(text) > chars for text in known.passages.values())
    return template.render(
        found=found,
        names=(names := short_names([each.system.name for each in found.all_measured])),
        conclusions=list(conclusions(found, names)),
        qrels=redacted(qrels),
        depth=DEPTH,
        cut_chars=chars if cut else None,
        with_texts=texts is not None,
        meanings={measure: meaning_of(measure.removeprefix(CONDENSED)) for measure in found.measures},
        roles=_roles(found),
        reach=_reach(found),
        chance=_CHANCE,
        head=_json(_head(found, known, names)),
        details="\n".join(_details(found, shown, known, chars)),
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """By name, the last two parts of its path, or as many as tell the names apart."""
    parts = {name: name.rstrip("/").split("/") for name in names}
    for kept in range(2, max(2, *map(len, parts.values())) + 1):
        short = {name: "/".join(each[-kept:]) for name, each in parts.items()}
        if len(set(short.values())) == len(short):
            return short
    return {name: name for name in names}


def conclusions(found: Evaluation, names: Mapping[str, str]) -> Iterator[str]:
    """A sentence a run: in which measures it differs from the baseline by more than chance."""
    for run in found.runs if found.baseline is not None else ():
        rows = [row for row in found.comparisons if row.run == run.system.name]
        kinds: dict[str, list[str]] = {"better in": [], "worse in": [], "no difference shown in": []}
        for row in rows:
            rose = row.change.mean() > 0
            kind = "no difference shown in" if row.p_holm >= _CHANCE else "better in" if rose else "worse in"
            kinds[kind].append(row.measure)
        told = "; ".join(f"{kind} {', '.join(measures)}" for kind, measures in kinds.items() if measures)
        yield f"{names[run.system.name]}: {told}."


def _roles(found: Evaluation) -> tuple[str, str]:
    """What the two runs are that stand beside each other."""
    return ("Before", "After") if len(found.runs) == 1 else ("Baseline", "Run")


def _text_chars(passages: int) -> int:
    """How much of each text there is room for."""
    return min(_TEXT_CHARS, max(_LEAST_TEXT_CHARS, _ALL_TEXT_CHARS // max(1, passages)))


def _reach(found: Evaluation) -> float:
    """The change farthest from 0 that an interval of a mean takes in: the scale of their drawings."""
    ends = [abs(float(end)) for row in found.comparisons for end in (row.interval or (row.change.mean(),))]
    return max([*ends, 1e-9])


def _head(found: Evaluation, texts: Texts, names: Mapping[str, str]) -> dict[str, Any]:
    """What the list of queries needs at once; the rest is parsed when a query is looked at."""
    return {
        "depth": DEPTH,
        "roles": _roles(found),
        "systems": [names[each.system.name] for each in found.all_measured],
        "measures": found.measures,
        "ids": found.query_ids,
        "queries": [_cut(texts.queries.get(query_id, ""), _QUERY_CHARS) for query_id in found.query_ids],
        "values": [
            [[float(f"{value:.8g}") for value in each.values[measure]] for measure in found.measures]
            for each in found.all_measured
        ],
    }


def _details(found: Evaluation, shown: dict[str, list[str]], texts: Texts, chars: int) -> Iterator[str]:
    """A line of JSON a query: how many passages are relevant, and of each passage shown its id, text,
    relevance, and by run the rank and score (null where the run lacks it).
    """
    judged: dict[str, dict[str, int]] = {}
    for judgment in found.judgments:
        judged.setdefault(judgment.query_id, {})[judgment.doc_id] = judgment.relevance
    for query_id in found.query_ids:
        relevance = judged[query_id]
        places = [_places(each.system.ranking.get(query_id, [])) for each in found.all_measured]
        passages = [
            [
                passage_id,
                _cut(texts.passages.get(passage_id), chars),
                relevance.get(passage_id),
                [of_run.get(passage_id) for of_run in places],
            ]
            for passage_id in shown[query_id]
        ]
        yield _json({"relevant": sum(value > 0 for value in relevance.values()), "passages": passages})


def _places(rows: list[RunRow]) -> dict[str, tuple[int, str]]:
    return {
        row.passage_id: (rank, f"{row.score if row.shown is None else row.shown:.4g}")
        for rank, row in enumerate(rows, start=1)
    }


def _cut(text: str | None, chars: int) -> str | None:
    return text if text is None or len(text) <= chars else f"{text[:chars]}…"


def _json(value: Any) -> str:
    """For a script element: no text can end it, as every < is escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
