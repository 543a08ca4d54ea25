"""The page at /: one file, nothing from outside."""

import base64
import hashlib
import re
from importlib.resources import files
from typing import NamedTuple


class Page(NamedTuple):
    content: bytes
    headers: dict[str, str]


def _load() -> Page:
    """Its own script and style may run, known by their hashes, and nothing else."""
    text = files("serve").joinpath("page.html").read_text(encoding="utf-8")

    def hashes(tag: str) -> str:
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(body.encode()).digest()).decode() for body in bodies)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')};"
        " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Page(text.encode(), headers)


PAGE = _load()
