"""Certify that scores agree: `python -m pipeline.verify --config configs/rerank/demo.yaml`.

A fixed set of pairs is scored in this process, through the job (beside the configured output) and, with
--service, through a server that speaks text-embeddings-inference's /rerank: this project's own does (an API
key for it is taken from RAYRANK_API_KEY). Where the model is one of the six BGE rerankers, its scores are
compared with the published ones as well. Exit status: 0 all agree; 1 some differ; 2 a mistake in the
configuration or the model.
"""

import argparse
import sys

from pipeline import command
from pipeline.command import Status
from pipeline.redaction import redacted
from pipeline.reranking.config import load_config
from pipeline.scoring.dtype import settled
from pipeline.verification.checks import Check, single_scorer, verify


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("verify", __doc__)
    parser.add_argument("--service", metavar="URL", help="a running server to compare with as well")
    options = parser.parse_args(arguments)
    return command.run(lambda: _verify(options))


def _verify(options: argparse.Namespace) -> Status:
    status = Status.FINISHED
    config = load_config(options.config, options.overrides)
    scorer = settled(single_scorer(config))
    print(f"{scorer.model} in {scorer.dtype}: largest difference from scores made here")
    for check in verify(config, options.service):
        print(redacted(_line(check)))
        status = status if check.agrees else Status.DIFFERS
    return status


def _line(check: Check) -> str:
    if check.difference is None:
        return f"{check.name:10} not compared: {check.note}"
    verdict = "agrees" if check.agrees else "DIFFERS"
    numbers = f"{check.difference:.1e} of {check.tolerance:g} allowed, {check.pairs} pairs"
    return f"{check.name:10} {verdict}: {numbers} {check.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
