"""The page at / in a real browser, over real models."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import page_screenshot
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.conftest import TINY
from tests.serve.browser import CONTRASTS, browser, opened
from tests.serve.local import LocalServer, serving

__all__ = ["browser"]  # a fixture

KEY = "0123456789abcdef"
PASSAGES = ["Pandas eat bamboo.", "The giant panda is a bear.", "hi", "Bamboo is a kind of grass."]


@pytest.fixture
def page(browser: Browser, server: LocalServer) -> Iterator[Page]:
    with opened(browser, server.url) as made:
        yield made


def fill(page: Page, query: str, passages: str) -> None:
    page.get_by_label("Query", exact=True).fill(query)
    page.get_by_label("Passages", exact=True).fill(passages)


def rank(page: Page) -> list[Locator]:
    """The entries, best first."""
    with page.expect_response("**/rank"):
        page.get_by_role("button", name="Rank").click()
    expect(page.locator("#status")).to_contain_text("passage")
    return page.get_by_role("list", name="Ranking").get_by_role("listitem").all()


def shown_score(entry: Locator) -> float:
    return float(entry.locator(".score").inner_text())


def sample(page: Page, name: str = "English") -> tuple[str, list[str]]:
    """Loads it. Query and passages."""
    page.get_by_role("button", name=name).click()
    query = page.get_by_label("Query", exact=True).input_value()
    return query, page.get_by_label("Passages", exact=True).input_value().split("\n")


def asked(client: httpx2.Client, query: str, passages: list[str], **options: Any) -> list[dict[str, Any]]:
    """What the server ranks."""
    answer = client.post("/rank", json={"query": query, "passages": passages} | options).raise_for_status()
    ranked: list[dict[str, Any]] = answer.json()["ranked"]
    return ranked


def as_shown(ranked: list[dict[str, Any]]) -> Any:
    return pytest.approx([entry["score"] for entry in ranked], abs=1e-4)


@pytest.mark.parametrize("name", ["English", "Chinese"])
def test_the_sample_is_ranked_with_the_servers_scores_and_its_moves(
    page: Page, client: httpx2.Client, name: str
) -> None:
    query, passages = sample(page, name)
    entries = rank(page)
    expected = asked(client, query, passages)
    assert [shown_score(entry) for entry in entries] == as_shown(expected)
    for entry, known in zip(entries, expected, strict=True):
        old, new = known["index"] + 1, known["rank"]
        by = f"{'▲' if new < old else '▼'} {abs(new - old)}" if new != old else "="
        expect(entry.locator(".moved > :first-child")).to_have_text(by)
        expect(entry.locator(".places")).to_have_text(f"{old} → {new}")
        expect(entry).to_contain_text(passages[known["index"]][:40])
    expect(page.locator(".facts")).to_contain_text("Model" + "tiny")


def test_the_sample_is_there_at_first_sight(page: Page) -> None:
    expect(page.locator("#count")).to_have_text("8 passages")
    assert len(rank(page)) == 8
    list_ends = page.get_by_role("list", name="Ranking").evaluate(
        "list => list.getBoundingClientRect().bottom"
    )
    assert page.locator(".facts").evaluate("facts => facts.getBoundingClientRect().top") >= list_ends


def test_two_models_stand_side_by_side(page: Page, client: httpx2.Client) -> None:
    fill(page, "panda", "\n".join(PASSAGES))
    page.get_by_label("Beside it").select_option("layers")
    rank(page)
    for model in ("tiny", "layers"):
        entries = page.get_by_role("list", name=f"Ranking by {model}").get_by_role("listitem").all()
        assert [shown_score(entry) for entry in entries] == as_shown(
            asked(client, "panda", PASSAGES, model=model)
        )
    page.get_by_label("Beside it").select_option("")
    rank(page)
    expect(page.get_by_role("list", name="Ranking by")).to_have_count(0)


def test_the_request_is_told_as_curl(page: Page, client: httpx2.Client) -> None:
    fill(page, "what's a panda?", "\n".join(PASSAGES))
    rank(page)
    page.get_by_text("As curl").click()
    command, *_ = page.locator("#curl").inner_text().splitlines()
    assert command == f"curl {client.base_url.join('/rank')} \\"
    words = shlex.split(page.locator("#curl").inner_text())
    given = json.loads(words[words.index("-d") + 1])
    known = asked(client, **given)
    assert [shown_score(entry) for entry in rank(page)] == as_shown(known)
    page.context.grant_permissions(["clipboard-write", "clipboard-read"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curl").text_content()


def test_what_the_model_did_not_read_is_marked(page: Page, client: httpx2.Client) -> None:
    query, passages = sample(page)
    known = next(entry for entry in asked(client, query, passages) if entry["passage_cut"])
    entry = rank(page)[known["rank"] - 1]
    expect(entry.locator(".cut")).to_contain_text(f"{known['passage_cut']:,} tokens not read")
    assert unfolded(entry, ".unread") == squeezed(passages[known["index"]][known["last_character"] :])
    assert unfolded(entry, ".text").startswith(squeezed(passages[known["index"]][: known["last_character"]]))


def test_emoji_are_one_character_as_for_the_server(page: Page, client: httpx2.Client) -> None:
    passage = "😀 smile 👍🏽 " * 300
    fill(page, "smile", passage)
    (known,) = asked(client, "smile", [passage.strip()])
    assert 0 < known["last_character"] < len(passage) - 10
    assert unfolded(rank(page)[0], ".unread") == squeezed(passage[known["last_character"] :])


def unfolded(entry: Locator, part: str) -> str:
    """All its text but the marks, without blanks."""
    while entry.locator("button").count():
        entry.locator("button").first.click()
    entry.evaluate("entry => entry.querySelectorAll('.cut').forEach(mark => mark.hidden = true)")
    return squeezed(entry.locator(part).inner_text())


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_a_query_that_was_cut_says_by_how_much(page: Page, client: httpx2.Client) -> None:
    query = "what is a panda " * 200
    (known,) = asked(client, query.strip(), ["hi"])
    fill(page, query, "hi")
    rank(page)
    expect(page.locator("#asked .cut")).to_contain_text(f"{known['query_cut']:,} tokens not read")


def test_model_and_cutoff_layer_can_be_chosen(page: Page, client: httpx2.Client) -> None:
    fill(page, "panda", "\n".join(PASSAGES))
    layers = page.get_by_label("Cutoff layer")
    expect(layers).to_be_hidden()
    page.get_by_label("Model").select_option("layers")
    expect(layers).to_have_value("4")
    layers.select_option("2")
    expected = asked(client, "panda", PASSAGES, model="layers", cutoff_layer=2)
    assert [shown_score(entry) for entry in rank(page)] == as_shown(expected)
    expect(page.locator(".facts")).to_contain_text("Cutoff layer" + "2")
    page.get_by_label("Model").select_option("tiny")
    expect(layers).to_be_hidden()
    assert [shown_score(entry) for entry in rank(page)] == as_shown(asked(client, "panda", PASSAGES))


def test_the_best_n_with_a_sigmoid(page: Page, client: httpx2.Client) -> None:
    fill(page, "panda", "\n".join(PASSAGES))
    page.get_by_label("Top n").fill("2")
    page.get_by_label("sigmoid").check()
    expected = asked(client, "panda", PASSAGES, top_k=2, normalize=True)
    assert [shown_score(entry) for entry in rank(page)] == as_shown(expected)
    expect(page.locator("#status")).to_contain_text("Best 2 of 4 passages")


def test_bars_start_at_zero(page: Page) -> None:
    fill(page, "panda", "\n".join(PASSAGES))
    for normalize in (False, True):
        page.get_by_label("sigmoid").set_checked(normalize)
        entries = rank(page)
        scores = [shown_score(entry) for entry in entries]
        low = min(0, *scores)
        high = max(0, *scores) if low < 0 or max(scores) > 1 else 1
        for entry, score in zip(entries, scores, strict=True):
            share = entry.locator(".bar span").evaluate("fill => parseFloat(fill.style.width)")
            assert share == pytest.approx(abs(score) / (high - low) * 100, abs=0.1)


def test_passages_may_be_paragraphs(page: Page) -> None:
    fill(page, "panda", "one\ntwo\n \n<b>three</b>\n\n\nfour\n")
    expect(page.locator("#count")).to_have_text("4 passages")
    page.get_by_label("paragraph").check()
    expect(page.locator("#count")).to_have_text("3 passages")
    texts = [entry.locator(".text").inner_text() for entry in rank(page)]
    assert sorted(texts) == ["<b>three</b>", "four", "one\ntwo"]


def test_the_sample_replaces_no_text_unasked(page: Page) -> None:
    fill(page, "panda", "mine")
    page.once("dialog", lambda dialog: dialog.dismiss())
    assert sample(page) == ("panda", ["mine"])


def test_the_keyboard_is_enough(page: Page) -> None:
    order = [
        "API",
        "English",
        "Chinese",
        "query",
        "passages",
        "line",
        "model",
        "against",
        "top",
        "normalize",
        "rank",
    ]
    reached = []
    for _ in order:
        page.keyboard.press("Tab")
        focused = page.locator(":focus")
        assert focused.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
        reached.append(
            focused.evaluate("e => e.value && e.type === 'radio' ? e.value : e.id || e.textContent")
        )
    assert [name.lower() for name in reached] == [name.lower() for name in order]
    page.locator("#english").press("Enter")
    with page.expect_response("**/rank"):
        page.get_by_label("Passages", exact=True).press("Control+Enter")
    expect(page.locator("#status")).to_contain_text("8 passages in")
    page.locator("#rank").press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".text > span:focus")).to_have_count(1)


def test_a_request_can_be_cancelled(page: Page) -> None:
    fill(page, "panda", "one\ntwo")
    page.route("**/rank", lambda _route: None)
    page.get_by_role("button", name="Rank").click()
    expect(page.locator("#status")).to_have_text("Ranking …")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(page.get_by_role("button", name="Rank")).to_be_focused()
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    page.unroute("**/rank")
    assert len(rank(page)) == 2


def test_a_phone_needs_no_scrolling_sideways(browser: Browser, server: LocalServer) -> None:
    with opened(browser, server.url, viewport={"width": 360, "height": 740}) as page:
        sample(page)
        rank(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        fill(page, "مرحبا بالعالم", "x" * 400 + "\nمرحبا بالعالم\n" + "汉" * 400)
        page.get_by_label("Model").select_option("layers")
        rank(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_aa_asks_for(
    browser: Browser, server: LocalServer, scheme: str
) -> None:
    with opened(browser, server.url, color_scheme=scheme, viewport={"width": 1280, "height": 900}) as page:
        sample(page)
        rank(page)
        page.locator("#error").evaluate("error => { error.hidden = false; error.textContent = 'wrong'; }")
        page.locator("#keyed").evaluate("field => field.hidden = false")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 21, 25)"
        assert dark == (scheme == "dark")
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 60
        assert [what for what in contrasts if what[1] < 4.5] == []


def test_an_api_key_is_asked_for_and_kept_in_the_tab(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGE_TEST_KEYS", f"tester:{KEY}")
    with (
        serving({"tiny": {"model": TINY}}, keys={"env": "PAGE_TEST_KEYS"}) as server,
        opened(browser, server.url) as page,
    ):
        key = page.get_by_label("API key")
        expect(page.get_by_role("alert")).to_contain_text("without an API key, which this server asks for")
        expect(key).to_be_focused()
        key.fill("wrong")
        key.press("Tab")
        expect(page.get_by_role("alert")).to_contain_text("The server does not know this API key.")
        sample(page)
        key.fill(KEY)
        assert len(rank(page)) == 8
        expect(page.get_by_role("alert")).to_be_hidden()
        page.reload()
        expect(key).to_have_value(KEY)
        expect(page.get_by_label("Model")).to_have_value("tiny")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_errors_say_what_to_do(browser: Browser) -> None:
    limits = {"requests_per_minute": 2}
    with (
        serving({"tiny": {"model": TINY}}, max_passages=3, limits=limits) as server,
        opened(browser, server.url) as page,
    ):
        alert = page.get_by_role("alert")
        press = page.get_by_role("button", name="Rank").click
        fill(page, "panda", "1\n2\n3\n4")
        press()
        expect(alert).to_contain_text("more than the server takes at once. It says: batch size 4 > maximum")
        fill(page, "panda", "1\n2\n3")
        rank(page)
        rank(page)
        press()
        expect(alert).to_contain_text("Your share is used up for now: try again in ")
        expect(page.get_by_role("list", name="Ranking")).to_be_hidden()
        page.context.set_offline(True)
        press()
        expect(alert).to_have_text("The server could not be reached. Is it running?")
        page.context.set_offline(False)


def test_nothing_is_sent_without_passages(page: Page, server: LocalServer) -> None:
    before = len(server.reports.seen)
    fill(page, "panda", " \n ")
    page.get_by_role("button", name="Rank").click()
    assert (
        page.locator("#passages").evaluate("field => field.validationMessage")
        == "There is no passage here yet."
    )
    assert len(server.reports.seen) == before


def test_the_readmes_picture_can_be_made(browser: Browser, server: LocalServer, tmp_path: Path) -> None:
    page_screenshot.save(browser, server.url, tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
