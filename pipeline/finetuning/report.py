"""The report of a training for people: one HTML file that holds all it shows."""

import json
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline import reporting
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.held_out import MEASURE
from pipeline.finetuning.summary import Summary
from pipeline.mining.negatives import REASONS as LEFT_OUT
from pipeline.redaction import redacted_values
from pipeline.reporting import plots
from pipeline.reporting.curves import curve
from pipeline.tables.schema import REASONS

REPORT = "report.html"


def render(summary: Summary, config: FinetuneConfig, metrics: bytes) -> str:
    """The page: numbers, and curves of all steps.

    metrics: metrics.jsonl, see progress.py.
    """
    told = [json.loads(line) for line in metrics.splitlines()]

    def values(name: str) -> list[tuple[int, float]]:
        return [(line["step"], line[name]) for line in told if name in line]

    page = Environment(
        loader=FileSystemLoader([Path(__file__).parent, *reporting.__path__]),
        autoescape=True,  # the page's name would not tell that it is HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("training.html.jinja")
    settings = redacted_values(config.model_dump(mode="json", exclude_defaults=True))
    return page.render(
        summary=summary,
        model=redacted_values({"model": config.scorer.model})["model"],
        fresh_head=config.fresh_head,
        source=redacted_values({"source": config.data.source})["source"],
        loss_name=config.loss.name,
        measure=MEASURE,
        plots=plots,
        reasons=REASONS | LEFT_OUT,
        config=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        loss=curve(values("loss"), "loss", from_zero=True),
        learning_rate=curve(values("learning_rate"), "learning rate", from_zero=True),
        quality=curve(values(MEASURE), MEASURE, from_zero=False, best=summary.best_step),
    )
