"""What a visitor of the page does, and what the server answers beside it."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.serve.browser import opened
from tests.serve.local import LocalServer

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
