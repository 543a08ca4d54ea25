"""Make a candidate table for `rerank`, of ids and texts that lie apart or of scattered rows:
`python -m pipeline.prepare --config configs/prepare/demo.yaml`.

Exit status: 0 all rows written; 3 finished, but some rows were rejected; 2 a mistake in the configuration or
the input; 75 what it needs (a cluster, a store, the output) is not there for now: try again later; 1 anything
else; 130 interrupted, 143 by SIGTERM. The same command makes an unfinished table afresh.
"""

import argparse

from pipeline import command
from pipeline.command import Status
from pipeline.config_file import load
from pipeline.preparation import flow
from pipeline.preparation.config import PrepareConfig


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("prepare", __doc__)
    command.add_job_options(parser)
    options = parser.parse_args(arguments)
    return command.run(lambda: _prepare(options), "the same command makes the table afresh")


def _prepare(options: argparse.Namespace) -> Status:
    return command.do_job(load(PrepareConfig, options.config, options.overrides), flow, options)


if __name__ == "__main__":
    command.leave(main())
