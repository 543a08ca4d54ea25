"""An error of an option names it as its field, so that whoever nests the config can name it in full."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.scoring import ScorerConfig
from tests.conftest import ROOT

CONFIGS = {"config.py"}
"""Where ValueErrors are pydantic's, which names the field itself."""


def errors(file: Path) -> Iterator[tuple[str, int, str, bool]]:
    """(file, line, how the message begins, whether it names a field) of each error that is made there."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
            first = node.args[0] if node.args else None
            begin = first.values[0] if isinstance(first, ast.JoinedStr) else first
            if isinstance(begin, ast.Constant) and isinstance(begin.value, str):
                named = any(keyword.arg == "field" for keyword in node.keywords)
                yield file.name, node.lineno, begin.value, named


def test_a_message_that_begins_with_an_option_names_its_field() -> None:
    made = [each for file in (ROOT / "pipeline/scoring").rglob("*.py") for each in errors(file)]
    of_options = [
        each for each in made
        if each[0] not in CONFIGS and re.split("[ :.]", each[2])[0] in ScorerConfig.model_fields
    ]  # fmt: skip
    assert len(of_options) > 10
    assert [each for each in of_options if not each[3]] == []
