"""The plan of a job's table: its shards, and the files beside it on which the output depends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pipeline import output
from pipeline.errors import InputError
from pipeline.reporting.judged import Judge
from pipeline.reranking import judging
from pipeline.reranking.config import RerankConfig
from pipeline.tables.candidates import Plan, plan_table
from pipeline.tables.output.training_rows import check_kept
from pipeline.tables.positives import check_label
from pipeline.tables.table_files import directory_of


def plan_candidates(config: RerankConfig, judge: Judge | None) -> Plan:
    """Raises InputError for a table that the job can't read, or that lacks what the config asks of it."""
    sought = () if judge is None else judge.queries
    table = directory_of(config.input)
    digests = {} if table is None else output.digests(table)
    with _told_who_needs_scores(config):
        plan = plan_table(
            config.input, config.kept, config.shard_pairs, sought, config.first_stage_score, digests
        )
    judging.check_common(judge, plan, config.input.path)
    positives = config.output.training_rows
    if positives is None:
        return plan
    types = plan.schema.field("kept").type
    check_label(positives.label, types, "output.training_rows.label")
    check_kept(types)
    return replace(plan, beside=(*plan.beside, *positives.files()))


@contextmanager
def _told_who_needs_scores(config: RerankConfig) -> Iterator[None]:
    """An error of the first stage's column names the field that needs it, which need not name the column."""
    try:
        yield
    except InputError as error:
        if config.first_stage_score is not None:
            column = config.kept[config.first_stage_score]
            if f" column {column!r}" in error.message:
                where = next(level.under for level in config.cascade if level.mixes_first_stage)
                error.message = f"{where}fuse.first_stage: {error.message}"
                if error.message.endswith("output.keep_columns"):
                    error.message += ": {first_stage_score: NAME}"
        raise
