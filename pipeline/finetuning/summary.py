"""What a training tells when it has ended, and the model card that says the same beside the weights."""

import platform
from collections.abc import Iterator, Sequence

import torch
import transformers
import yaml
from pydantic import Field

from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.held_out import MEASURE
from pipeline.job_summary import JobSummary, rejected_lines
from pipeline.mining.negatives import REASONS as LEFT_OUT
from pipeline.redaction import redacted


class Summary(JobSummary):
    """Rows that were read = `rows` + all `rejected`. Of a run: its queries = `rows` + all `left_out`."""

    output: str
    rows: int
    """Trained on, once an epoch."""
    rejected: dict[str, int]
    """Rows that could not be read, of training rows or of the run that is mined."""
    left_out: dict[str, int] = Field(default_factory=dict)
    """Queries of the run that give no row, by the reason."""
    steps: int
    """That were done: fewer than planned where the training stopped early."""
    planned_steps: int
    pairs: int
    """That went through the network, by all steps."""
    loss: float
    """Mean of the last tenth of the steps."""
    rows_held_out: int = 0
    """Rows whose query is held out too: what is measured on it is too good."""
    held_out_queries: int = 0
    measured: dict[int, float] = Field(default_factory=dict)
    """nDCG@10 on held-out queries after so many steps; 0 is the beginning."""
    best_step: int | None = None
    """The step whose model is kept. Null: the last one, nothing was measured."""
    p_value: float | None = None
    """Of a paired randomization test, the kept model against the beginning."""
    wall_s: float
    """Of this start."""

    def lines(self) -> Iterator[str]:
        yield (
            f"{self.steps} steps over {self.rows} rows, {self.pairs} pairs, in {self.wall_s:.1f} s;"
            f" the loss at the end is {self.loss:.4f}"
        )
        if self.steps < self.planned_steps:
            yield f"Stopped early: {self.planned_steps} steps were planned"
        if self.best_step is not None:
            yield (
                f"{MEASURE} on {self.held_out_queries} held-out queries: {self.measured[0]:.4f} before,"
                f" {self.measured[self.best_step]:.4f} after {self.best_step} steps (p = {self.p_value:.4f})"
            )
        if self.rows_held_out:
            yield f"Too good to trust: {self.rows_held_out} rows have a query that is held out"
        yield f"The checkpoint is {self.output}/model, each step's loss in {self.output}/metrics.jsonl"
        yield f"{self.output}/report.html has the curves"
        if self.left_out:
            yield f"{sum(self.left_out.values())} queries have no row, see {self.output}/unmatched:"
            yield from (f"  {count} {reason}: {LEFT_OUT[reason]}" for reason, count in self.left_out.items())
        yield from rejected_lines(self.output, self.rejected)


def model_card(summary: Summary, config: FinetuneConfig, prompts: Sequence[str]) -> str:
    """README.md of the checkpoint. prompts: `RowPrompts.told`."""
    options = yaml.safe_dump(
        config.model_dump(mode="json", exclude_defaults=True, exclude={"output", "num_cpus", "actors"}),
        sort_keys=False,
        allow_unicode=True,
    )
    return redacted("\n".join(_card(summary, config, prompts, options)))


def _card(summary: Summary, config: FinetuneConfig, prompts: Sequence[str], options: str) -> Iterator[str]:
    yield "---\npipeline_tag: text-ranking\ntags: [reranker, cross-encoder, rayrank]\n---\n"
    yield f"# A reranker, fine-tuned from {config.scorer.model}\n"
    head = " with a fresh head" if config.fresh_head else ""
    yield (
        f"{config.scorer.model}{head} was trained by rayrank for {summary.steps} steps on {summary.rows} rows"
        f" of {config.data.source} ({sum(summary.rejected.values())} rows were rejected),"
        f" {summary.pairs} pairs in all. The mean loss of the last tenth of the steps is"
        f" {summary.loss:.4f}.\n"
    )
    if summary.best_step is not None:
        yield f"| steps | {MEASURE} on {summary.held_out_queries} held-out queries |\n| ---: | ---: |"
        yield from (f"| {step} | {value:.4f} |" for step, value in sorted(summary.measured.items()))
        yield (
            f"\nThe weights are those after {summary.best_step} steps; p = {summary.p_value:.4f} against the"
            " beginning (paired randomization test). The step was chosen on these same queries, so the number"
            " is a little too good.\n"
        )
    if summary.rows_held_out:
        yield (
            f"{summary.rows_held_out} of the rows have a query that is held out as well, so that this number"
            " tells little of other queries.\n"
        )
    yield "## Instructions and prompts\n"
    if prompts:
        yield (
            "What stood around query and passage in training. The checkpoint does not hold it: set the"
            " options of the scorer to the same when you score with it.\n"
        )
        yield from prompts
        yield ""
    else:
        yield "None was set, and no row had one of its own. Set none when you score with it.\n"
    yield f"The options that are not the defaults:\n\n```yaml\n{options}```\n"
    yield (
        f"Versions: torch {torch.__version__}, transformers {transformers.__version__}, Python"
        f" {platform.python_version()}."
    )
