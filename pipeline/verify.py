"""Certify that scores agree: `python -m pipeline.verify --config configs/rerank/demo.yaml`.

A fixed set of pairs is scored in this process and through a job, which writes beside the configured output.
With --service they are also scored by a server that speaks text-embeddings-inference's /rerank, as this
project's endpoint does; RAYRANK_API_KEY may hold an API key for it. Scores of the six BGE rerankers, and of
some others, are also compared with the published ones.

A scorer of another dtype, engine or quantization is also compared with torch in float32, on candidates of the
job's own table: differences of scores, Kendall's tau of each query's two orders, and, with --qrels, nDCG@10.
If its calibrated model is not there yet, it is made first, as the job would make it.

Exit status: 0 all agree; 1 some differ, or nDCG@10 lost more than --max-ndcg-loss; 2 a mistake in the
configuration or the model; 75 what it needs (the server, a store) is not there for now: try again later.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline import command
from pipeline.command import Status
from pipeline.errors import ConfigError, InputError
from pipeline.redaction import redacted
from pipeline.reranking.config import load_config
from pipeline.scoring import ScorerConfig
from pipeline.standard_streams import show

if TYPE_CHECKING:  # they load torch
    from pipeline.verification.checks import Check
    from pipeline.verification.cost import Cost


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("verify", __doc__)
    parser.add_argument(
        "--service", metavar="URL", help="also compare with the scores of this running server"
    )
    parser.add_argument("--qrels", metavar="URL", help="judgments of the job's queries, to compare nDCG@10")
    parser.add_argument(
        "--max-ndcg-loss",
        metavar="LOSS",
        type=float,
        default=0.01,
        help="how much nDCG@10 may fall below that of torch in float32, with --qrels; default: 0.01",
    )
    parser.add_argument(
        "--queries",
        metavar="NUMBER",
        type=_at_least_one,
        default=20,
        help="how many of the job's queries are compared with torch in float32; default: 20",
    )
    options = parser.parse_args(arguments)
    return command.run(lambda: _verify(options))


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"needs a whole number, 1 or more, not {text!r}")
    return int(text)


def _verify(options: argparse.Namespace) -> Status:
    config = load_config(options.config, options.overrides)
    with command.loading():  # torch: a mistake in the config waits for none
        from pipeline.scoring.dtype import settled  # noqa: PLC0415  (torch comes with it)
        from pipeline.verification.checks import single_scorer, verify  # noqa: PLC0415  (torch comes with it)
        from pipeline.verification.cost import cost_of, is_exact, with_calibration  # noqa: PLC0415  (torch comes with it)
    status = Status.FINISHED
    scorer = settled(single_scorer(config))
    if options.qrels is not None and is_exact(scorer):
        raise ConfigError(
            "--qrels: this config computes on torch in float32, with which others are compared; leave it out"
        )
    config = with_calibration(config)
    title = f"{scorer.model} in {_precision(scorer)}: largest difference from scores made here"
    for number, check in enumerate(verify(config, options.service)):
        if number == 0:  # a model that is not there has no title
            show(title)
        show(redacted(_line(check)))
        status = status if check.agrees else Status.DIFFERS
    here = config.with_scorers([settled(single_scorer(config))])
    try:
        cost = cost_of(here, options.qrels, options.queries)
    except InputError as error:  # scores can be certified before there is a table
        if options.qrels is not None:
            raise
        show(redacted(f"cost       not compared on the job's candidates: {error}"))
        return status
    if cost is not None:
        show("\n".join(_cost_lines(cost, options.max_ndcg_loss, options.queries)))
        status = status if cost.ndcg_loss <= options.max_ndcg_loss else Status.DIFFERS
    return status


def _cost_lines(cost: "Cost", max_loss: float, asked: int) -> Iterator[str]:
    yield f"cost       beside torch in float32, {cost.pairs} pairs of {cost.queries} queries:"
    if cost.queries < asked:
        which = "queries" if cost.ndcg is None else "judged queries"
        yield f"           the table has no more {which}; {asked} were asked for"
    yield f"           scores differ by {cost.largest:.2g} at most, by {cost.mean:.2g} on average"
    yield f"           Kendall's tau of a query {cost.tau:.4f} on average, {cost.worst_tau:.4f} at worst"
    if cost.ndcg is None:
        yield "           nDCG@10 not compared: no judgments: --qrels URL"
    else:
        verdict = "agrees" if cost.ndcg_loss <= max_loss else "LOSES"
        before, after = cost.ndcg
        yield f"           nDCG@10 {verdict}: {before:.4f} to {after:.4f}, a loss of {max_loss:g} is allowed"


def _precision(scorer: ScorerConfig) -> str:
    precision = scorer.quantization.kind if scorer.quantization else scorer.dtype
    return precision if scorer.engine == "torch" else f"{precision} on {scorer.engine}"


def _line(check: "Check") -> str:
    if check.difference is None:
        return f"{check.name:10} not compared: {check.note}"
    verdict = "agrees" if check.agrees else "DIFFERS"
    noun = "pair" if check.pairs == 1 else "pairs"
    numbers = f"{check.difference:.1e} of {check.tolerance:g} allowed, {check.pairs} {noun}"
    return f"{check.name:10} {verdict}: {numbers} {check.note}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
