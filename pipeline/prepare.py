"""Make a candidate table for `rerank`, of ids and texts that lie apart or of scattered rows:
`python -m pipeline.prepare --config configs/prepare/demo.yaml`.

Exit status: 0 all rows written; 3 finished, but some rows were rejected; 2 a mistake in the configuration or
the input; 1 anything else; 130 interrupted, 143 by SIGTERM. The same command makes an unfinished
table afresh.
"""

import argparse
import sys

from pipeline import command
from pipeline.command import Status
from pipeline.config_file import load
from pipeline.preparation import flow
from pipeline.preparation.config import PrepareConfig
from pipeline.redaction import redacted


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("prepare", __doc__)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    parser.add_argument("--check-bytes", action="store_true", help=command.CHECK_BYTES)
    options = parser.parse_args(arguments)
    return command.run(lambda: _prepare(options), "the same command makes the table afresh")


def _prepare(options: argparse.Namespace) -> Status:
    config = load(PrepareConfig, options.config, options.overrides)
    if options.dry_run:
        print(redacted(flow.describe(config)))
        return Status.FINISHED
    summary = flow.run(config, check_bytes=options.check_bytes)
    print(redacted(summary.as_text()))
    return Status.REJECTS if summary.rejected else Status.FINISHED


if __name__ == "__main__":
    sys.exit(main())
