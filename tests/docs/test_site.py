"""The site: it builds in strict mode, shows what the pages link to, and asks no other host for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.conftest import ROOT

_ELSEWHERE = re.compile(r"(https?:)?//", re.IGNORECASE)
_IN_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", re.IGNORECASE)
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser fetches by itself, by element; an <a> waits for a click."""


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.classes.update((given.get("class") or "").split())
        if tag in _LOADS:
            self.loads.append(given.get(_LOADS[tag]) or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    mkdocs = Path(sys.executable).with_name("mkdocs")
    ran = subprocess.run(
        [mkdocs, "build", "--strict", "--quiet", "--site-dir", made],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return made


def test_nothing_comes_from_another_host(site: Path) -> None:
    pages = {path: Page(path.read_text()) for path in site.rglob("*.html")}
    assert len(pages) >= 30
    for path, page in pages.items():
        assert [link for link in page.loads if _ELSEWHERE.match(link)] == [], path
        assert "mermaid" not in page.classes, f"{path}: the theme fetches mermaid; draw an SVG"
    assert [path for path in site.rglob("*.css") if _IN_CSS.search(path.read_text())] == []


def test_what_a_page_loads_is_there(site: Path) -> None:
    for path in site.rglob("*.html"):
        if path.name == "404.html":  # its links begin at the host's root
            continue
        missing = [
            link for link in Page(path.read_text()).loads if link and not (path.parent / link).exists()
        ]
        assert missing == [], path


def test_a_link_to_a_file_leads_to_a_page_that_shows_it(site: Path) -> None:
    assert 'href="configs/rerank/corpus.yaml.html"' in (site / "jobs.html").read_text()
    shown = (site / "configs/rerank/corpus.yaml.html").read_text()
    assert "shard_pairs" in shown
    assert "corpus.yaml.html" in (site / "configs/rerank/index.html").read_text()


def test_every_page_can_be_found() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    pages = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")]
    assert [page for page in pages if page not in nav] == [], "give the page a line in the nav of mkdocs.yml"


def test_every_benchmarks_numbers_can_be_found() -> None:
    told = (ROOT / "docs/benchmarks.md").read_text()
    notes = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("benchmarks/*.md")]
    assert [note for note in notes if f"(../{note})" not in told] == [], (
        "give it a line in docs/benchmarks.md"
    )
