"""Which files are pages of the site: those of docs/, and all that they link to.

A page keeps its place in the repository, so that one link is right in an editor, on a forge and on the site.
MkDocs calls the functions whose names begin with on_.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*.md", "benchmarks/*.md")
_ASSETS = ("docs/site/*.css", "docs/site/*.svg")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)")
_IMAGES = (".png", ".svg")
_LANGUAGES = {".yaml": "yaml", ".py": "python", ".json": "json", ".sh": "bash"}


class Target(NamedTuple):
    """What a page links to: a path from the repository's root."""

    root: Path
    path: str

    @property
    def source(self) -> str:
        """The page that shows it on the site."""
        if (self.root / self.path).is_dir():
            return posixpath.join(self.path, "index.md")
        return self.path if self.path.endswith((".md", *_IMAGES)) else f"{self.path}.md"

    @property
    def is_shown_by_us(self) -> bool:
        return self.source != self.path

    def markdown(self) -> str:
        """Of a page that shows a file or a folder."""
        place, title = self.root / self.path, f"# {self.path}\n\n"
        if place.is_dir():
            return title + "\n".join(f"- [{file.name}]({file.name})" for file in sorted(place.iterdir()))
        language = _LANGUAGES.get(place.suffix, "text")
        return f"{title}````{language}\n{place.read_text(encoding='utf-8').rstrip()}\n````\n"


def _targets(root: Path, page: str, markdown: str) -> Iterator[Target]:
    for link in _LINK.findall(markdown):
        target = Target(root, posixpath.normpath(posixpath.join(posixpath.dirname(page), link)))
        if (root / target.path).exists():
            yield target


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = _root(config)
    kept = Files([file for file in files if file.src_dir != config.docs_dir])
    for pattern in (*_PAGES, *_ASSETS):
        for path in sorted(root.glob(pattern)):
            _add(kept, path.relative_to(root).as_posix(), config)
    waiting = list(kept.documentation_pages())
    while waiting:
        page = waiting.pop()
        for target in _targets(root, page.src_uri, page.content_string):
            if kept.get_file_from_path(target.source) is None:
                waiting += filter(File.is_documentation_page, [_add_target(kept, target, config)])
    return kept


def _add(files: Files, path: str, config: MkDocsConfig) -> File:
    """A file at its own place; docs/ is no part of its address."""
    address = re.sub(r"\.md$", ".html", path.removeprefix("docs/"))
    dest_uri = "index.html" if path == "README.md" else address
    file = File(path, str(_root(config)), config.site_dir, use_directory_urls=False, dest_uri=dest_uri)
    files.append(file)
    return file


def _add_target(files: Files, target: Target, config: MkDocsConfig) -> File:
    if not target.is_shown_by_us:
        return _add(files, target.path, config)
    file = File.generated(config, target.source, content=target.markdown())
    files.append(file)
    return file


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Links to files and folders lead to the pages that show them."""
    root, uri = _root(config), page.file.src_uri
    shown = {target.path: target.source for target in _targets(root, uri, markdown) if target.is_shown_by_us}

    def of_site(link: re.Match[str]) -> str:
        folder = posixpath.dirname(uri)
        source = shown.get(posixpath.normpath(posixpath.join(folder, link[1])))
        return link[1] if source is None else posixpath.relpath(source, folder or ".")

    return _LINK.sub(of_site, markdown)
