"""Find candidates for queries among passages, as a table that `rerank` reads:
`python -m pipeline.retrieve --config configs/retrieve/demo.yaml`.

Exit status: 0 all rows used; 3 finished, but some rows were rejected; 2 a mistake in the configuration or
the input; 75 what it needs (a cluster, a store, the output) is not there for now: try again later; 1 anything
else; 130 interrupted, 143 by SIGTERM. Start it again to go on where it stopped.
"""

import argparse
import sys

from pipeline import command
from pipeline.command import Status
from pipeline.config_file import load
from pipeline.retrieval.config import RetrieveConfig


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("retrieve", __doc__)
    command.add_job_options(parser)
    options = parser.parse_args(arguments)
    return command.run(lambda: _retrieve(options), "the same command goes on where it stopped")


def _retrieve(options: argparse.Namespace) -> Status:
    config = load(RetrieveConfig, options.config, options.overrides)
    with command.loading():
        from pipeline.retrieval import flow  # noqa: PLC0415  (torch: a mistake in the config waits for none)
    return command.do_job(config, flow, options)


if __name__ == "__main__":
    sys.exit(main())
