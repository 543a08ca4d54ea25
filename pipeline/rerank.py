"""Rerank a candidate table: `python -m pipeline.rerank --config configs/rerank/demo.yaml`.

Exit status: 0 all rows scored; 3 finished, but some rows were rejected; 4 some shards were given up, since
they killed every process that worked on them; 2 a mistake in the configuration, the input or the model; 1
anything else; 130 interrupted, 143 by SIGTERM. Start it again to go on where it stopped.
"""

import argparse
import sys

from pipeline import log
from pipeline.config_file import config_parser
from pipeline.errors import RayrankError
from pipeline.interruption import Terminated
from pipeline.reranking import dry_run, flow
from pipeline.reranking.config import load_config

FINISHED, FAILED_BY_USER, FINISHED_WITH_REJECTS, SHARDS_MISSING, INTERRUPTED, TERMINATED = (
    0,
    2,
    3,
    4,
    130,
    143,
)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = config_parser("rerank", __doc__)
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and stop")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    log.configure()
    try:
        config = load_config(options.config, options.overrides)
        if options.dry_run:
            print(dry_run.describe(config))
            return FINISHED
        summary = flow.run(config)
    except RayrankError as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED_BY_USER
    except KeyboardInterrupt as signal:
        print("interrupted; the same command goes on from the shards that are done", file=sys.stderr)
        return TERMINATED if isinstance(signal, Terminated) else INTERRUPTED
    print(summary.as_text())
    if summary.quarantined:
        return SHARDS_MISSING
    return FINISHED_WITH_REJECTS if summary.rejected else FINISHED


if __name__ == "__main__":
    sys.exit(main())
