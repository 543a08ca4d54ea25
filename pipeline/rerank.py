"""Rerank a candidate table: `python -m pipeline.rerank --config configs/rerank/demo.yaml`.

Exit status: 0 all rows scored; 3 finished, but some rows were rejected; 4 some shards were given up, since
they killed every process that worked on them; 2 a mistake in the configuration, the input or the model; 75
what it needs (a cluster, a store, the output) is not there for now: try again later; 1 anything else; 130
interrupted, 143 by SIGTERM. Start it again to go on where it stopped.
"""

import argparse

from pipeline import command
from pipeline.command import Status
from pipeline.errors import ConfigError
from pipeline.redaction import redacted
from pipeline.reranking.config import load_config
from pipeline.standard_streams import show, show_summary


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser("rerank", __doc__)
    command.add_job_options(parser)
    parser.add_argument(
        "--speed",
        metavar="SPEED",
        help="with --dry-run: time and cost, at so many pairs/s an actor; as `measure` finds here in some"
        " seconds; or as in OUTPUT, of a former run of this scorer. Default: as in the shards done",
    )
    parser.add_argument(
        "--by",
        metavar="TIME",
        help="with --dry-run: how many actors are needed to be done by 18:00, or in 6h",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, *, starts_early: bool = False) -> int:
    """starts_early: as `command.start_ray_early`, with its condition."""
    options = parse(arguments)
    return command.run(
        lambda: _rerank(options, starts_early), "the same command goes on from the shards that are done"
    )


def _rerank(options: argparse.Namespace, starts_early: bool) -> Status:
    config = load_config(options.config, options.overrides)
    if not options.dry_run and (options.speed is not None or options.by is not None):
        raise ConfigError("--speed and --by are of a plan: add --dry-run")
    if starts_early and not options.dry_run and config.executor == "ray_data":
        command.start_ray_early(config.output.path, config.max_outage_s)
    with command.loading():  # torch: Ray starts meanwhile, and a mistake in the config waits for none
        from pipeline.evaluation.judge import read_judge  # noqa: PLC0415  (torch comes with it)
        from pipeline.reranking import dry_run, flow  # noqa: PLC0415  (torch comes with it)
    if options.dry_run:
        with command.field_named(config):
            show(redacted(dry_run.describe(config, options.speed, options.by, read_judge)))
        return Status.FINISHED
    with command.field_named(config), command.missing_when_finished(config.output.path):
        summary = flow.run(config, check_bytes=options.check_bytes, read_judge=read_judge)
    show_summary(redacted(summary.as_text()))
    if summary.quarantined:
        return Status.SHARDS_MISSING
    return Status.REJECTS if summary.rejected else Status.FINISHED


if __name__ == "__main__":
    command.leave(main(starts_early=True))
