"""A real browser for the tests of the page."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Playwright, Request, expect, sync_playwright

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

CONTRASTS = """() => {
  const parts = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
  const luminance = (color) => {
    const [red, green, blue] = parts(color).map((part) => linear(part / 255));
    return .2126 * red + .7152 * green + .0722 * blue;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return parts(color)[3] === 0 ? behind(element.parentElement) : color;
  };
  const holdsText = (element) => element.value ||
    [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  const seen = [...document.querySelectorAll("body *:not(script, option)")]
    .filter((element) => holdsText(element) && element.checkVisibility());
  return seen.map((element) => {
    const both = [getComputedStyle(element).color, behind(element)].map(luminance);
    const what = `${element.tagName} ${element.className} ${element.textContent.slice(0, 30)}`;
    return [what, (Math.max(...both) + .05) / (Math.min(...both) + .05)];
  });
}"""
"""Of all text in sight: what it is, and its contrast as WCAG 2 computes it."""


_WAIT_MS = 15_000
"""For what comes about at once where the machine has nothing else to do."""
expect.set_options(timeout=_WAIT_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=_chromium(playwright), args=ARGUMENTS)
        yield made
        made.close()


def _chromium(playwright: Playwright) -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    installed = filter(None, map(shutil.which, names))
    program = os.environ.get("CHROMIUM") or next(installed, playwright.chromium.executable_path)
    if not Path(program).exists():
        lacking = "no browser: install chromium, name one in CHROMIUM, or run `playwright install chromium`"
        pytest.fail(lacking) if os.environ.get("CI") else pytest.skip(lacking)
    return program


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page once it knows the models. In the end: nothing was asked of others, nothing complained."""
    requests: list[Request] = []
    complaints: list[str] = []
    page = browser.new_page(**options)
    page.set_default_timeout(_WAIT_MS)
    page.on("request", lambda request: requests.append(request))  # noqa: PLW0108 (Playwright marks it)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    with page.expect_response("**/v1/models"):
        page.goto(url)
    yield page
    page.close()
    schemes_and_hosts = {urlsplit(request.url)[:2] for request in requests if request.url[:5] != "data:"}
    assert schemes_and_hosts == {urlsplit(url)[:2]}
    # Chromium notes every answer that is an error.
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []
