"""Train a reranker on queries with good and bad passages:
`python -m pipeline.finetune --config configs/finetune/demo.yaml`.

Exit status: 0 all rows used; 3 finished, but some rows were rejected; 2 a mistake in the configuration, the
input or the model, or a loss that is no number; 75 what it needs (a cluster, a store, the output) is not
there for now: try again later; 1 anything else; 130 interrupted, 143 by SIGTERM. Start it again to go on
where it stopped.
"""

import argparse

from pipeline import command
from pipeline.command import Status
from pipeline.config_file import load
from pipeline.finetuning.config import FinetuneConfig
from pipeline.redaction import redacted
from pipeline.standard_streams import show_summary


def main(arguments: list[str] | None = None) -> int:
    options = command.parser("finetune", __doc__).parse_args(arguments)
    return command.run(lambda: _finetune(options), "the same command goes on from its last checkpoint")


def _finetune(options: argparse.Namespace) -> Status:
    config = load(FinetuneConfig, options.config, options.overrides)
    with command.loading():
        from pipeline.finetuning import flow  # noqa: PLC0415  (torch comes with it)
    with command.field_named(config), command.missing_when_finished(config.output.path):
        summary = flow.run(config)
    show_summary(redacted(summary.as_text()))
    return Status.REJECTS if summary.rejected else Status.FINISHED


if __name__ == "__main__":
    command.leave(main())
