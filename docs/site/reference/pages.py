"""Which reference pages there are, and what makes each."""

from collections.abc import Callable
from pathlib import Path

from docs.site.reference import api, commands, config, metrics, python

DIRECTORY = Path(__file__).parents[2] / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "config.md": config.made,
    "commands.md": commands.made,
    "python.md": python.made,
    "metrics.md": metrics.made,
    "api.md": api.made,
}
