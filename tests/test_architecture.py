"""The import contracts of pyproject.toml hold new modules too: violations are tried, and seen refused."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pipeline
from pipeline.registry import names_in
from tests.conftest import ROOT

VIOLATIONS = {
    "a new room of pipeline": ("pipeline/new.py", "", "pipeline.new"),
    "a new module of serve": ("serve/new.py", "", "serve.new"),
    "a new module of scoring": ("pipeline/scoring/new.py", "", "pipeline.scoring.new"),
    "a new module that imports Ray": (
        "pipeline/reranking/new.py",
        "import ray",
        "pipeline.reranking.new -> ray",
    ),
    "a new module of serve that imports Ray": (
        "serve/dialects/new.py",
        "import ray",
        "serve.dialects.new -> ray",
    ),
    "a new module that imports a command": (
        "pipeline/evaluation/new.py",
        "import pipeline.rerank",
        "pipeline.evaluation.new -> pipeline.rerank",
    ),
    "up within scoring": (
        "pipeline/scoring/batching.py",
        "import pipeline.scoring.scorer",
        "pipeline.scoring.batching -> pipeline.scoring.scorer",
    ),
    "up within tables": (
        "pipeline/tables/storage.py",
        "import pipeline.tables.candidates",
        "pipeline.tables.storage -> pipeline.tables.candidates",
    ),
    "one family to another": (
        "pipeline/scoring/families/gemma.py",
        "import pipeline.scoring.families.qwen3",
        "pipeline.scoring.families.gemma -> pipeline.scoring.families.qwen3",
    ),
    "one format to another": (
        "pipeline/tables/formats/csv.py",
        "import pipeline.tables.formats.jsonl",
        "pipeline.tables.formats.csv -> pipeline.tables.formats.jsonl",
    ),
    "up within serve": ("serve/tracing.py", "import serve.app", "serve.tracing -> serve.app"),
    "up within a room": (
        "pipeline/preparation/plan.py",
        "import pipeline.preparation.tasks",
        "pipeline.preparation.plan -> pipeline.preparation.tasks",
    ),
    "one room to another": (
        "pipeline/preparation/tasks.py",
        "import pipeline.reranking.config",
        "pipeline.preparation.tasks -> pipeline.reranking.config",
    ),
    "serve to the files": ("serve/work.py", "import pipeline.tables", "serve.work -> pipeline.tables"),
    "pipeline to serve": ("pipeline/log.py", "import serve.work", "pipeline.log -> serve.work"),
}
"""A file, the import that is added to it, and what the refusal names."""


@pytest.fixture(scope="module")
def refusal(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the linter says of a copy of the tree with all of them."""
    tree = tmp_path_factory.mktemp("tree")
    for package in ("pipeline", "serve"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    for file, added, _ in VIOLATIONS.values():
        with (tree / file).open("a") as stream:
            stream.write(f"{added}\n")
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("violation", VIOLATIONS)
def test_a_violation_is_refused_by_name(refusal: str, violation: str) -> None:
    assert VIOLATIONS[violation][2] in refusal


def test_serve_is_kept_from_all_of_pipeline_but_what_both_share() -> None:
    """Its contract names what is forbidden: a new room must not be missing there."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one["name"].startswith("serve knows of pipeline"))
    allowed = {"scoring", "ranking", "placement", "registry", "config_problems", "errors", "log"}
    allowed |= {"capacity", "fusion", "interruption", "labels", "levels", "plain_file", "redaction"}
    allowed |= {"standard_streams", "temporary_folder"}
    forbidden = {module.removeprefix("pipeline.") for module in contract["forbidden_modules"]}
    assert forbidden == set(names_in(pipeline)) - allowed
