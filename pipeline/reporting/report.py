"""The report of a job for people: one HTML file that holds all it shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.reporting import plots
from pipeline.reporting.summary import Summary
from pipeline.reporting.totals import Tally
from pipeline.tables.schema import REASONS

_PAGE = "report.html.jinja"
_QUANTILES = {
    "p5": "5 % below",
    "p25": "25 % below",
    "p50": "median",
    "p75": "75 % below",
    "p95": "95 % below",
}


def render(
    settings: Mapping[str, Any], summary: Summary, tally: Tally, places: Mapping[str, tuple[str, ...]]
) -> str:
    """The page.

    settings: the job's config, as YAML holds it; places: where the rows of the slowest shards stand, by the
    shard's name.
    """
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # the page's name would not tell that it is HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(_PAGE)
    scored = bool(tally.scores.counts)
    return page.render(
        summary=summary,
        tally=tally,
        places=places,
        plots=plots,
        reasons=REASONS,
        quantiles=_QUANTILES,
        config=yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True),
        scores=plots.score_plot(tally.scores, tally.scores, "candidates") if scored else None,
        best_scores=plots.score_plot(tally.best_scores, tally.scores, "queries") if scored else None,
        movement=plots.movement_plot(tally.movement) if scored else None,
        throughput=plots.throughput_plot(tally.timeline) if scored else None,
    )
