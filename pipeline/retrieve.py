"""Find candidates for queries among passages, as a table that `rerank` reads:
`python -m pipeline.retrieve --config configs/retrieve/demo.yaml`.

Exit status: 0 all rows used; 3 finished, but some rows were rejected; 2 a mistake in the configuration or
the input; 75 what it needs (a cluster, a store, the output) is not there for now: try again later; 1 anything
else; 130 interrupted, 143 by SIGTERM. Start it again to go on where it stopped.
"""

import argparse

from pipeline import command
from pipeline.command import Status
from pipeline.config_file import load
from pipeline.errors import ConfigError
from pipeline.redaction import redacted
from pipeline.retrieval.config import RetrieveConfig
from pipeline.standard_streams import show


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = command.parser("retrieve", __doc__)
    command.add_job_options(parser)
    parser.add_argument(
        "--speed",
        metavar="SPEED",
        help="with --dry-run: how long embedding takes and what it costs, at so many texts/s an actor; or as"
        " `measure` finds here in some seconds",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, *, starts_early: bool = False) -> int:
    """starts_early: as `command.start_ray_early`, with its condition."""
    options = parse(arguments)
    return command.run(lambda: _retrieve(options, starts_early), "the same command goes on where it stopped")


def _retrieve(options: argparse.Namespace, starts_early: bool) -> Status:
    config = load(RetrieveConfig, options.config, options.overrides)
    if not options.dry_run and options.speed is not None:
        raise ConfigError("--speed is of a plan: add --dry-run")
    if starts_early and not options.dry_run and config.executor == "ray_data":
        command.start_ray_early(config.output.path, config.max_outage_s)
    with command.loading():  # Ray starts meanwhile, and a mistake in the config waits for none
        from pipeline.retrieval import flow  # noqa: PLC0415  (see above)
    if options.dry_run:
        with command.field_named(config):
            show(redacted(flow.describe(config, options.speed)))
        return Status.FINISHED
    return command.do_job(config, flow, options)


if __name__ == "__main__":
    command.leave(main(starts_early=True))
