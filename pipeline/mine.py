"""Mine hard negatives from a run, and write training rows as FlagEmbedding reads them:
`python -m pipeline.mine --config configs/mine/demo.yaml`.

Exit status: 0 all rows used; 3 finished, but some rows were rejected; 2 a mistake in the configuration or
the input; 75 what it needs (a cluster, a store, the output) is not there for now: try again later; 1 anything
else; 130 interrupted, 143 by SIGTERM. Start it again to go on where it stopped.
"""

import argparse

from pipeline import command
from pipeline.command import Status
from pipeline.config_file import load
from pipeline.mining import flow
from pipeline.mining.config import MineConfig


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("mine", __doc__)
    command.add_job_options(parser)
    options = parser.parse_args(arguments)
    return command.run(lambda: _mine(options), "the same command goes on where it stopped")


def _mine(options: argparse.Namespace) -> Status:
    return command.do_job(load(MineConfig, options.config, options.overrides), flow, options)


if __name__ == "__main__":
    command.leave(main())
