"""Headings and tables of the reference pages."""

import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(`[^`]*`)")


def page(title: str, about: str, parts: Iterable[str]) -> str:
    made = "<!-- `make docs` writes this page. What it says stands in the code. -->"
    return "\n\n".join([made, f"# {title}", about, *parts]) + "\n"


def anchor(heading: str) -> str:
    """As forges and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def prose(text: str) -> str:
    """A docstring as one line of Markdown; signs of HTML and of tables stand for themselves."""
    parts = _CODE.split(" ".join(text.split()))
    plain = [
        part if part.startswith("`") else part.replace("<", "&lt;").replace("*", r"\*") for part in parts
    ]
    return "".join(plain).replace("|", r"\|")


def code(text: object) -> str:
    return f"`{text}`".replace("|", r"\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
