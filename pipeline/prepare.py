"""Make a candidate table for `rerank`, of ids and texts that lie apart or of scattered rows:
`python -m pipeline.prepare --config configs/prepare/demo.yaml`.

Exit status: 0 all rows written; 3 finished, but some rows were rejected; 2 a mistake in the configuration or
the input; 1 anything else; 130 interrupted, 143 by SIGTERM. The same command makes an unfinished
table afresh.
"""

import sys

from pipeline import log
from pipeline.config_file import config_parser, load
from pipeline.errors import RayrankError
from pipeline.interruption import Terminated
from pipeline.preparation import flow
from pipeline.preparation.config import PrepareConfig

FINISHED, FAILED_BY_USER, FINISHED_WITH_REJECTS, INTERRUPTED, TERMINATED = 0, 2, 3, 130, 143


def main(arguments: list[str] | None = None) -> int:
    parser = config_parser("prepare", __doc__)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    options = parser.parse_args(arguments)
    log.configure()
    try:
        config = load(PrepareConfig, options.config, options.overrides)
        if options.dry_run:
            print(flow.describe(config))
            return FINISHED
        summary = flow.run(config)
    except RayrankError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED_BY_USER
    except KeyboardInterrupt as signal:
        print("interrupted; the same command makes the table afresh", file=sys.stderr)
        return TERMINATED if isinstance(signal, Terminated) else INTERRUPTED
    print(summary.as_text())
    return FINISHED_WITH_REJECTS if summary.rejected else FINISHED


if __name__ == "__main__":
    sys.exit(main())
