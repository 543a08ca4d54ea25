"""Mine hard negatives from a run, and write training rows as FlagEmbedding reads them:
`python -m pipeline.mine --config configs/mine/demo.yaml`.

Exit status: 0 all rows used; 3 finished, but some rows were rejected; 2 a mistake in the configuration or
the input; 1 anything else; 130 interrupted, 143 by SIGTERM. Start it again to go on where it stopped.
"""

import argparse
import sys

from pipeline import command
from pipeline.command import Status
from pipeline.config_file import load
from pipeline.mining import flow
from pipeline.mining.config import MineConfig
from pipeline.redaction import redacted


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("mine", __doc__)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    parser.add_argument("--check-bytes", action="store_true", help=command.CHECK_BYTES)
    options = parser.parse_args(arguments)
    return command.run(lambda: _mine(options), "the same command goes on where it stopped")


def _mine(options: argparse.Namespace) -> Status:
    config = load(MineConfig, options.config, options.overrides)
    if options.dry_run:
        print(redacted(flow.describe(config)))
        return Status.FINISHED
    summary = flow.run(config, check_bytes=options.check_bytes)
    print(redacted(summary.as_text()))
    return Status.REJECTS if summary.rejected else Status.FINISHED


if __name__ == "__main__":
    sys.exit(main())
