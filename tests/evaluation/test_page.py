"""The page of a comparison, in a real browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ir_measures import Qrel
from playwright.sync_api import Browser, Page, expect

from pipeline.evaluation.compare import page as page_of
from pipeline.evaluation.comparison import Evaluation, Measured
from pipeline.evaluation.runs import RunRow
from pipeline.evaluation.systems import System
from pipeline.evaluation.texts import Texts
from tests.evaluation.test_compare import TEXTS, TRAP, sample
from tests.serve.browser import CONTRASTS, browser

__all__ = ["browser"]  # a fixture


@contextmanager
def opened(browser: Browser, file: Path, html: str, **options: Any) -> Iterator[Page]:
    """In the end: the page asked nobody for anything, nothing complained, no text became a script."""
    file.write_text(html, encoding="utf-8")
    asked: list[str] = []
    complaints: list[str] = []
    page = browser.new_page(**options)
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(file.as_uri())
    expect(page.locator(".row").first).to_be_visible()
    yield page
    assert "taken" not in page.title()
    page.close()
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    assert complaints == []


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    html = page_of(sample(tmp_path), "qrels", TEXTS)
    with opened(browser, tmp_path / "page.html", html, viewport={"width": 1280, "height": 900}) as made:
        yield made


def expect_list(page: Page, query_ids: list[str]) -> None:
    expect(page.locator(".row small:nth-of-type(1)")).to_have_text(query_ids)


def test_columns_show_ranks_moves_judgments_scores_and_texts(page: Page) -> None:
    expect(page.locator("#detail h2")).to_have_text(TRAP)
    before, after = (
        [
            " ".join(entry.inner_text().split())
            for entry in page.locator(f".columns > :nth-child({column}) li").all()
        ]
        for column in (1, 2)
    )
    assert [entry[:60] for entry in before] == [
        f"1 ▼ down 1, to 2 not relevant score 9.5 id bad {'汉' * 13}",
        "2 gone unjudged score 8.5 id old Pandas",
        f"3 ▲ up 2, to 1 relevant (2) score 7.5 id good {TRAP}"[:60],
    ]
    assert [entry[:48] for entry in after] == [
        f"1 ▲ up 2, from 3 relevant (2) score 9.5 id good {TRAP[:4]}"[:48],
        "2 ▼ down 1, from 1 not relevant score 8.5 id bad",
        f"3 new unjudged score 7.5 id new {'x' * 16}",
    ]
    expect(page.locator(".values")).to_contain_text("RR 0.3333 → 1.0000 +0.6667")


def test_the_list_is_ordered_and_filtered(page: Page) -> None:
    expect_list(page, ["q1", "q2", "q3"])  # +.667, -.5, 0
    page.get_by_label("Order", exact=True).select_option("worst")
    expect_list(page, ["q2", "q3", "q1"])
    page.get_by_label("Show", exact=True).select_option("better")
    expect_list(page, ["q1"])
    page.get_by_label("Show", exact=True).select_option("all")
    expect(page.get_by_role("status")).to_have_text("3 of 3 queries: 1 better, 1 same, 1 worse")
    for words, found in (
        ("الباندا", ["q2"]),
        ("PANDAS", ["q1"]),
        ("</script>", ["q2", "q3", "q1"]),
        ("q3", ["q3"]),
    ):
        page.get_by_label("Filter", exact=True).fill(words)
        expect(page.get_by_role("status")).to_contain_text(f"{len(found)} of 3 queries")
        expect_list(page, found)
    page.get_by_label("Filter", exact=True).fill("nowhere")
    expect(page.locator("#detail")).to_have_text("No query is like that: change the filter or what is shown.")
    page.get_by_label("Filter", exact=True).fill("")
    page.get_by_label("Measure", exact=True).select_option("nDCG@10")
    page.get_by_label("Before", exact=True).select_option("1")
    page.get_by_label("After", exact=True).select_option("0")
    expect(page.locator(".row .by").first).to_have_text("−0.5000")
    means = page.get_by_role("region", name="Means")  # the table stays as it was
    expect(means).to_contain_text("first, whatever is chosen below.")


def test_the_keyboard_is_enough(page: Page) -> None:
    page.get_by_label("Filter", exact=True).focus()
    page.keyboard.press("Tab")
    rows = page.get_by_role("listbox", name="Queries")
    expect(rows).to_be_focused()
    for key, query in (
        ("ArrowDown", "q2"),
        ("End", "q3"),
        ("ArrowDown", "q3"),
        ("Home", "q1"),
        ("PageDown", "q3"),
    ):
        page.keyboard.press(key)
        expect(page.locator("#detail .hint").first).to_contain_text(f"Query {query}, 1 relevant")
        active = rows.get_attribute("aria-activedescendant")
        expect(page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.locator("#detail")).to_be_focused()
    page.keyboard.press("Tab")
    more = page.get_by_role("button", name="more").first
    expect(more).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="less")).to_have_attribute("aria-expanded", "true")


def test_a_run_alone_is_listed_by_its_values(browser: Browser, tmp_path: Path) -> None:
    found = sample(tmp_path)
    html = page_of(replace(found, baseline=None, comparisons=()), "qrels", TEXTS)
    with opened(browser, tmp_path / "page.html", html) as page:
        expect(page.locator(".row .by")).to_have_text(["0.5000", "1.0000", "1.0000"])
        expect(page.get_by_label("Before", exact=True)).to_be_hidden()
        expect(page.locator(".columns li")).to_have_count(2)
        expect(page.locator(".values")).to_have_text("RR 0.5000nDCG@10 0.6309")


def test_a_phone_needs_no_scrolling_sideways(browser: Browser, tmp_path: Path) -> None:
    html = page_of(sample(tmp_path), "qrels", TEXTS)
    viewport = {"width": 360, "height": 740}
    with opened(browser, tmp_path / "page.html", html, viewport=viewport) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_aa_asks_for(
    browser: Browser, tmp_path: Path, scheme: str
) -> None:
    html = page_of(sample(tmp_path), "qrels", TEXTS)
    with opened(browser, tmp_path / "page.html", html, color_scheme=scheme) as page:
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 60
        assert [what for what in contrasts if what[1] < 4.5] == []


def test_ten_thousand_queries_open_fast(browser: Browser, tmp_path: Path) -> None:
    html = page_of(
        many(10_000), "qrels", Texts({}, dict.fromkeys(map("p{}".format, range(10)), "word " * 60))
    )
    assert len(html) < 40_000_000
    with opened(browser, tmp_path / "page.html", html) as page:
        assert page.evaluate("performance.now()") < 10_000  # seen: 2,800 ms on a slow machine that did more
        assert page.locator(".row").count() < 40
        page.get_by_role("listbox").press("End")
        expect(page.get_by_role("option", selected=True).locator("small").first).to_have_text("q00000")
        page.get_by_label("Filter", exact=True).fill("q04321")
        expect(page.get_by_role("status")).to_have_text("1 of 10,000 queries: 1 better, 0 same, 0 worse")


def many(queries: int) -> Evaluation:
    """The later the query, the larger its change; nothing is read or tested."""
    ids = tuple(f"q{number:05}" for number in range(queries))
    values = {"RR": np.zeros(queries)}, {"RR": np.linspace(0, 1, queries)}
    passages = [f"p{number}" for number in range(10)]
    rankings = (
        {query: [RunRow(query, passage, 1.0) for passage in order] for query in ids}
        for order in (passages, passages[::-1])
    )
    first, run = (
        Measured(System(name, ranking, None), value, {"RR": None}, frozenset(), {})
        for name, ranking, value in zip(("first", "run"), rankings, values, strict=True)
    )
    return Evaluation(
        judgments=tuple(Qrel(query, "p3", 1, "0") for query in ids),
        judged=queries,
        query_ids=ids,
        measures=("RR",),
        runs=(run,),
        baseline=first,
        comparisons=(),
        remarks=(),
    )
