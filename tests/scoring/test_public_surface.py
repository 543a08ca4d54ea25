"""What others may lean on. A change here is a change for them: say so in the commit."""

import ast
import inspect
import textwrap

import pytest
from pydantic import BaseModel

import pipeline.scoring
from pipeline.scoring import Limits, LongPassages, Quantization, Scorer, ScorerConfig
from tests.conftest import TINY


def test_the_package() -> None:
    names = ["Limits", "LongPassages", "Quantization", "RankedPassage", "Scorer", "ScorerConfig"]
    assert pipeline.scoring.__all__ == names
    assert all(hasattr(pipeline.scoring, name) for name in names)


def test_the_scorer() -> None:
    scorer = Scorer(ScorerConfig(model=TINY, device="cpu"))
    public = {name for name in dir(scorer) if not name.startswith("_")}
    assert public == {
        "adapter", "calibrate", "check_calibration", "checkpoint", "config", "embed", "embed_windows",
        "embeds", "encode", "encoder", "family", "fingerprint", "forward", "lengths", "load_network", "model",
        "normalizes", "pinned_config", "rank", "score", "settle", "shown", "spans_read",
    }  # fmt: skip


@pytest.mark.parametrize("config", [ScorerConfig, Limits, LongPassages, Quantization])
def test_a_fields_docstring_is_its_description(config: type[BaseModel]) -> None:
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)
    documented = {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in zip(definition.body, definition.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }
    descriptions = {name: field.description for name, field in config.model_fields.items()}
    described = {name: description for name, description in descriptions.items() if description is not None}
    assert {name: inspect.cleandoc(text) for name, text in described.items()} == documented
    assert described.keys() == descriptions.keys()
