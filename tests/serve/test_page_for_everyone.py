"""The page at / for those with a keyboard, a phone, tired eyes, a key, or none; and what goes wrong on it."""

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.conftest import TINY
from tests.serve.browser import CONTRASTS, browser, opened
from tests.serve.local import LocalServer, serving
from tests.serve.page_steps import fill, page, rank, sample

__all__ = ["browser", "page"]  # fixtures

KEY = "0123456789abcdef"


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
        asks = "error => { const asks = error.cloneNode(true); asks.className = 'asks'; error.after(asks); }"
        page.locator("#error").evaluate(asks)
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
        expect(page.get_by_role("alert")).to_contain_text("This server asks for an API key.")
        expect(page.get_by_role("alert")).to_have_class("asks")
        expect(key).to_be_focused()
        key.fill("wrong")
        key.press("Tab")
        expect(page.get_by_role("alert")).to_contain_text("The server does not know this API key.")
        expect(page.get_by_role("alert")).not_to_have_class("asks")
        sample(page)
        key.fill(KEY)
        assert len(rank(page)) == 8
        expect(page.get_by_role("alert")).to_be_hidden()
        page.reload()
        expect(key).to_have_value(KEY)
        expect(page.get_by_label("Model")).to_have_value("tiny")
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


def test_a_right_key_and_a_click_on_rank_ranks(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """The press ends the typing. What the page learns by it, and the error that goes, move nothing before
    the click is over.
    """
    monkeypatch.setenv("PAGE_TEST_KEYS", f"tester:{KEY}")
    models = {"tiny": {"model": TINY}, "other": {"model": TINY}}  # a second one has a row of its own
    with (
        serving(models, keys={"env": "PAGE_TEST_KEYS"}) as server,
        opened(browser, server.url, viewport={"width": 1280, "height": 1200}) as page,
    ):
        key, button = page.get_by_label("API key"), page.get_by_role("button", name="Rank")
        key.fill("wrong")
        key.press("Tab")
        expect(page.get_by_role("alert")).to_contain_text("The server does not know this API key.")
        key.fill(KEY)
        place = middle(button)
        page.mouse.move(*place)
        with page.expect_response("**/rank"):
            page.mouse.down()
            expect(key).not_to_be_focused()
            assert middle(button) == place
            page.mouse.up()
        expect(page.locator("#status")).to_contain_text("8 passages in")
        expect(page.get_by_role("alert")).to_be_hidden()


def test_an_answer_that_comes_during_a_click_moves_nothing_under_it(page: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/rank", hold)
    page.get_by_label("Query", exact=True).press("Control+Enter")
    expect(page.locator("#status")).to_have_text("Ranking …")
    button = page.get_by_role("button", name="Chinese")
    place = middle(button)
    page.mouse.move(*place)
    page.mouse.down()
    with page.expect_event("requestfinished"):
        held[0].fulfill(status=500, body="no")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert middle(button) == place
    page.mouse.up()
    expect(page.get_by_role("alert")).to_contain_text("The server failed.")
    expect(page.locator("#count")).to_have_text("6 passages")


def middle(button: Locator) -> tuple[float, float]:
    box = button.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_errors_say_what_to_do(browser: Browser) -> None:
    limits = {"requests_per_minute": 4}  # the page itself asks for the models, and one fails
    with (
        serving({"tiny": {"model": TINY}}, max_passages=3, limits=limits) as server,
        opened(browser, server.url) as page,
    ):
        alert = page.get_by_role("alert")
        press = page.get_by_role("button", name="Rank").click
        fill(page, "panda", "1\n2\n3\n4")
        press()
        expect(alert).to_contain_text("more than the server takes at once. It says: 4 passages are more")
        fill(page, "panda", "1\n2\n3")
        rank(page)
        rank(page)
        press()
        expect(alert).to_contain_text("Rate limit reached: try again in ")
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
