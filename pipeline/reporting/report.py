"""The report of a job for people: one HTML file that holds all it shows."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from pipeline.redaction import redacted_values
from pipeline.reporting import plots
from pipeline.reporting.judged import span
from pipeline.reporting.summary import Summary
from pipeline.reporting.totals import Totals
from pipeline.tables.output.statistics import Mover
from pipeline.tables.schema import REASONS

_QUANTILES = {
    "p5": "5 % below",
    "p25": "25 % below",
    "p50": "median",
    "p75": "75 % below",
    "p95": "95 % below",
}


class MovedQuery(NamedTuple):
    """A query that moved, with texts where they are known."""

    mover: Mover
    query: str | None
    first: str | None
    """The passage that is first now."""
    former: str | None
    """The one that was."""


@cache  # to compile it takes longer than to fill it in
def _template() -> Template:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # the page's name would not tell that it is HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html.jinja")


def render(
    settings: Mapping[str, Any],
    summary: Summary,
    totals: Totals,
    places: Mapping[str, tuple[str, ...]],
    moved: Sequence[MovedQuery],
) -> str:
    """The page. A plot that would have a single point is left out.

    settings: the job's config, as YAML holds it; places: where the rows of the slowest shards stand, by the
    shard's name; moved: the queries that moved most.
    """
    scored = bool(totals.scores.counts)
    several = {
        name: spread.least < spread.largest
        for name, spread in (("scores", totals.scores), ("best_scores", totals.best_scores))
    }
    throughput = plots.throughput_plot(totals.timeline) if scored else None
    rank_changes = plots.rank_changes_plot(totals.rank_changes) if scored else None
    return _template().render(
        summary=summary,
        totals=totals,
        places=redacted_values(dict(places)),
        plots=plots,
        reasons=REASONS,
        quantiles=_QUANTILES,
        config=yaml.safe_dump(redacted_values(dict(settings)), sort_keys=False, allow_unicode=True),
        scored=scored,
        span=span,
        moved=moved,
        scores=plots.score_plot(totals.scores, totals.scores, "candidates") if several["scores"] else None,
        best_scores=(
            plots.score_plot(totals.best_scores, totals.scores, "queries") if several["best_scores"] else None
        ),
        rank_changes=rank_changes if rank_changes and len(rank_changes.labels) > 1 else None,
        throughput=throughput if throughput and len(throughput.bars) > 1 else None,
    )
