"""The report as a reader's browser gets it: parsed, its numbers read back."""

import re
from collections.abc import Iterable
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.reporting.judged import BeforeAfter, Change, Judged
from pipeline.reporting.report import MovedQuery, render
from pipeline.reporting.summary import totalled
from pipeline.reporting.totals import Totals
from pipeline.tables.output.attempts import Quarantined
from pipeline.tables.output.markers import ShardReport
from pipeline.tables.output.statistics import Distribution, Mover, RankChanges
from tests.reporting import reports
from tests.reporting.reports import START, quarantined, report

VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}


class Page(HTMLParser):
    """Texts, tags and tables of a page; fails where tags are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source, self.texts, self.links = text, list[str](), list[str]()
        self.tags, self._open = set[str](), list[str]()
        self.rows = list[list[str]]()
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [str(value) for name, value in attrs if name in {"href", "src", "xlink:href"}]
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if text := " ".join(data.split()):
            self.texts.append(text)
            if {"td", "th"} & set(self._open):
                self.rows[-1][-1] += text

    def svgs(self) -> list[ElementTree.Element]:
        found = re.findall(r"<svg.*?</svg>", self.source, re.DOTALL)
        return [ElementTree.fromstring(text) for text in found]


def page(
    shard_reports: Iterable[ShardReport],
    quarantined: Iterable[Quarantined] = (),
    output: str = "out/run",
    top_k: int = 10,
) -> Page:
    totals = Totals()
    for one in shard_reports:
        totals.add(one)
    settings = {"input": {"path": "in"}, "output": {"path": output, "top_k": top_k}, "scorer": {"model": "m"}}
    missing = list(quarantined)
    summary = reports.summary(
        output=output, shards=len(totals.done) + len(missing), top_k=top_k, quarantined=missing,
        **totalled(totals),
    )  # fmt: skip
    places = {one.name: (f"in/{one.name}.parquet from row 1",) for one in totals.slowest}
    moved = [MovedQuery(mover, "<a query>", "now", None) for _, mover in totals.movers]
    return Page(render(settings, summary, totals, places, moved))


def test_it_holds_all_it_shows() -> None:
    shown = page(report(index) for index in range(30))
    assert shown.links == []
    assert not shown.tags & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?:|url\(|@import|@font-face", shown.source)
    assert "prefers-color-scheme: dark" in shown.source
    assert 'name="viewport"' in shown.source


def test_its_numbers_are_the_reports() -> None:
    shown = page(report(index, truncated=2) for index in range(30))
    assert "600 of 60 queries" in shown.texts
    rows = {row[0]: row[1:] for row in shown.rows}
    assert rows["least"] == ["−4", "−4"]
    assert rows["largest"] == ["5.5", "1"]
    assert rows["1"][-1] == "60"  # each first rank came from place 10
    assert "100% of the queries have a new first passage." in " ".join(shown.texts)
    assert sum(int(row[1]) for row in shown.rows if " to " in row[0]) == 600 + 60  # both histograms
    slow = next(row for row in shown.rows if row[0].startswith("shard-"))
    assert slow == ["shard-000029in/shard-000029.parquet from row 1", "4 s", "20", "500"]
    assert "finished, every row scored" in shown.texts
    assert "12.5" in shown.texts
    assert "of an actor at work, over all starts; the last start took 1 min" in " ".join(shown.texts)


def test_its_plots_are_well_formed_and_inside_their_frames() -> None:
    svgs = page(report(index) for index in range(30)).svgs()
    marks = [rect for svg in svgs for rect in svg.iter("rect")]
    assert len(svgs) > 4
    assert len(marks) > 100
    for rect in marks:
        for start, size in (("x", "width"), ("y", "height")):
            values = [float(str(rect.get(name, "0")).rstrip("%")) for name in (start, size)]
            assert min(values) >= 0
            assert sum(values) <= 100 + 1e-6
    named = [svg for svg in svgs if svg.get("role") == "img"]
    assert all(svg.get("aria-label") for svg in named)
    assert len(named) == 5
    assert len(named) + len([svg for svg in svgs if svg.get("aria-hidden")]) == len(svgs)


def test_bars_of_a_plot_are_its_reports_through_a_pause() -> None:
    evening = [report(index, finished=START + timedelta(hours=8, minutes=index)) for index in range(10)]
    shown = page(
        [*(report(index + 10, finished=START + timedelta(minutes=index)) for index in range(10)), *evening]
    )
    assert "7 h 50 min pause" in " ".join(shown.texts)
    per_slot = [float(row[1]) for row in shown.rows if row[0].startswith("2026-11-21 ")]
    assert sum(per_slot) == pytest.approx(400, abs=len(per_slot))


def test_it_tells_how_good_the_run_is_where_judgments_do() -> None:
    change = Change(mean=0.25, interval=(0.125, 0.5), p=0.01, p_holm=0.02, better=3, same=1, worse=0)
    judged = Judged(
        qrels="<qrels>", identity="1 byte", queries=5, measured_queries=4, lost_queries=1, remarks=("cut",),
        measures={"nDCG@10": BeforeAfter(before=0.5, after=0.75, change=change)},
    )  # fmt: skip
    totals = Totals()
    totals.add(report())
    shown = Page(render({}, reports.summary(judged=judged), totals, {}, []))
    row = next(row for row in shown.rows if row[0] == "nDCG@10")
    assert row[1:] == ["0.5000", "0.7500", "+0.2500", "+0.1250 to +0.5000", "0.0200", "3/1/0"]
    told = " ".join(shown.texts)
    assert "4 of the 5 queries that <qrels> judges are in the run; the measures are theirs." in told
    numbers = told.index("+0.1250 to +0.5000")
    assert told.index("With the 1 lost queries as 0, over 5: nDCG@10 0.4000 -> 0.6000.") > numbers
    assert "Before is the order of the input (" in told
    assert "--qrels <qrels> --common-queries \\ --html PAGE.html" in told
    assert "cut" in shown.texts
    assert "--set qrels=FILE" not in told
    assert "--set qrels=FILE" in " ".join(page([report()]).texts)


def test_the_summary_tells_what_cuts_pairs() -> None:
    def told(**changes: Any) -> list[str]:
        return [line for line in reports.summary(**changes).lines() if " cut " in line]

    of_the_run = "; query_cut and passage_cut in the run tell by how many tokens"
    assert told(truncated=0) == []
    assert told(truncated=2) == [f"2 pairs were cut to fit the scorer's lengths{of_the_run}"]
    assert told(truncated=2, lengths={"max_length": 256, "positions": 512}) == [
        f"2 pairs were cut at max_length 256, of the model's 512 positions{of_the_run};"
        " scorer.long_passages or a larger length reads more"
    ]
    assert told(truncated=2, lengths={"max_length": 512, "positions": 512}) == [
        f"2 pairs were cut at max_length 512, of the model's 512 positions{of_the_run}; scorer.long_passages"
        " reads more"
    ]


def test_the_summary_of_a_cascade_tells_which_level_cuts() -> None:
    level = {"model": "m", "model_fingerprint": "f", "keep": 5, "scores": {}, "pairs": 20}
    lengths = {"max_length": 512, "passage_max_length": 16}
    levels = [level | {"truncated": 7, "lengths": lengths}, level]
    lines = [
        line
        for line in reports.summary(truncated=3, levels=levels).lines()
        if " cut at " in line or "were cut" in line
    ]
    assert lines[0].startswith(
        "3 pairs were cut at some level; query_cut and passage_cut in the run tell by how"
    )
    assert lines[1:] == [
        "  levels.0: 7 cut at passage_max_length 16 or max_length 512;"
        " scorer.long_passages or a larger length reads more"
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lengths": {"max_length": 256}}, "50% longer than max_length 256"),
        ({}, "50% longer than the scorer's lengths"),
    ],
)
def test_the_tile_of_cut_pairs_names_the_length(changes: dict[str, Any], told: str) -> None:
    totals = Totals()
    totals.add(report())
    shown = Page(render({}, reports.summary(truncated=10, **changes), totals, {}, []))
    assert told in " ".join(shown.texts)


def test_the_tile_of_tokens_says_that_an_embedding_model_reads_a_text_once() -> None:
    totals = Totals()
    totals.add(report())
    shown = Page(render({}, reports.summary(embeds=True), totals, {}, []))
    assert "100 a pair, since equal texts are read once, 20% padding" in " ".join(shown.texts)


def test_the_cost_is_told_where_the_actors_have_a_price() -> None:
    totals = Totals()
    totals.add(report())
    priced = reports.summary(cost=12.5, actor_hours=5.0, cost_per_million_pairs=625_000)
    shown = Page(render({}, priced, totals, {}, []))
    at = shown.texts.index("cost")
    assert shown.texts[at + 1 : at + 3] == [
        "12.5",
        "5 actor-hours by actors.price_per_hour; 625k a million pairs of the run",
    ]
    assert "cost" not in page([report()]).texts


def test_the_speed_of_a_run_that_reused_nearly_all_has_its_caveat() -> None:
    few = "(by only 5 pairs, the others reused: too few to tell)"
    shown = page([report(reused=15)])
    assert f"of an actor at work, over all starts {few}; the last start" in " ".join(shown.texts)
    assert few not in " ".join(page([report()]).texts)
    assert f"12.5 pairs/s an actor {few}" in reports.summary(reused=15, actor_hours=1.0).as_text()


def test_texts_are_escaped() -> None:
    shown = page([report(rejected={"null_query": 2})], [quarantined()], output='<script>"&')
    assert "script" not in shown.tags
    assert '<script>"&' in shown.texts


def test_what_is_missing_is_said() -> None:
    shown = page(
        [report(rejected={"null_query": 1500, "malformed_row": 2})], [quarantined(index=7, pairs=20)]
    )
    assert "1 of 2 shards missing" in shown.texts
    rows = {row[0]: row[1:] for row in shown.rows}
    assert rows["shard-000007s3://bucket/in/part-7.parquet from row 1"] == ["score", "20"]
    assert rows["query is null or missingnull_query"] == ["1,500"]


def test_a_job_that_scored_nothing_has_a_report() -> None:
    nothing: dict[str, Any] = {
        "pairs": 0,
        "queries": 0,
        "kept": 0,
        "tokens": 0,
        "padded_tokens": 0,
        "score_s": 0.0,
    }
    nothing |= {"scores": Distribution(), "best_scores": Distribution(), "rank_changes": RankChanges()}
    shown = page([report(rejected={"null_query": 20}, **nothing)])
    assert "No pair was scored: there is nothing to plot." in shown.texts


def test_one_pair_has_a_report() -> None:
    one = Distribution(least=0.5, largest=0.5, first=32768, counts=(1,))
    moved = RankChanges(same=1, moves=((1, *[0] * 10), *[(0,) * 11] * 10))
    single: dict[str, Any] = {"scores": one, "best_scores": one, "rank_changes": moved, "score_s": 0.0}
    shown = page([report(pairs=1, queries=1, finished=START + timedelta(seconds=0.5), **single)])
    assert "1 of 1 queries" in shown.texts
    plots = [svg.get("aria-label") for svg in shown.svgs() if svg.get("role") == "img"]
    assert plots == ["Candidates that moved up, stayed, moved down"]  # no plot of a single point


def test_the_date_is_told_and_the_queries_that_moved_most() -> None:
    movers = [
        Mover(
            query_id=f"q{place}",
            first_id="b",
            came_from=place,
            former_id="a",
            fell_to=2,
            first_at=1,
            former_at=0,
        )
        for place in range(2, 14)
    ]
    shown = page([report(0, movers=movers[::2]), report(1, movers=movers[1::2])])
    told = [row[0].removeprefix("<a query>") for row in shown.rows if row[0].startswith("<a query>")]
    assert told == [f"q{place}" for place in range(13, 3, -1)]
    assert "out/run, 2026-11-21: reranked by <m>" in shown.texts
