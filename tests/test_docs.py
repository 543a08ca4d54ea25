"""README and docs: links lead somewhere, commands exist, code and YAML are what the program takes."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import yaml_text
from pipeline.config_file import load
from pipeline.finetuning.config import FinetuneConfig
from pipeline.reranking.config import RerankConfig
from pipeline.retrieval.config import RetrieveConfig
from serve.config import ServeConfig
from tests.conftest import ROOT, TINY

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")
COMMAND = re.compile(r"python -m (pipeline\.\w+)(?:[^`\n]*--config (configs/[\w./-]+))?")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(place), f"{page.name}: {target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_configs_exist(page: Path) -> None:
    for command, config in COMMAND.findall(page.read_text()):
        assert find_spec(command), command
        assert not config or (ROOT / config).exists(), config


def test_messages_are_those_of_the_program() -> None:
    files = (path for package in ("pipeline", "serve") for path in (ROOT / package).rglob("*.py"))
    sources = "".join(path.read_text() for path in files)
    told = re.findall(r"^\| `([a-z][^`]+)`", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(told) >= 5
    assert [message for message in told if message not in sources] == []


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readmes_lines_of_python_run() -> None:
    (code,) = blocks("README.md", "python")
    assert "BAAI/bge-reranker-v2-m3" in code
    names: dict[str, Any] = {}
    exec(code.replace("BAAI/bge-reranker-v2-m3", TINY), names)
    assert names["scorer"].config.model == TINY


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("README.md", RerankConfig),
        ("docs/jobs.md", RerankConfig),
        ("docs/first-stage.md", RetrieveConfig),
        ("docs/finetune.md", FinetuneConfig),
    ],
)
def test_a_jobs_yaml_is_one(tmp_path: Path, page: str, kind: Any) -> None:
    whole = next(block for block in blocks(page, "yaml") if "output:" in block)
    (tmp_path / "job.yaml").write_text(whole)
    load(kind, tmp_path / "job.yaml", [])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_can_be_read(page: Path) -> None:
    for block in blocks(str(page.relative_to(ROOT)), "yaml"):
        assert yaml_text.parse(block)[1], block


def test_the_nights_yaml_files_are_what_their_commands_take(tmp_path: Path) -> None:
    _, first, job = blocks("docs/nightly.md", "yaml")
    for kind, whole in ((RetrieveConfig, first), (RerankConfig, job)):
        (tmp_path / "job.yaml").write_text(whole)
        config: Any = load(kind, tmp_path / "job.yaml", ["run_date=2026-11-20"])
        assert config.output.path.endswith("/2026-11-20/")


def test_the_shipped_nights_from_documents_fit_together() -> None:
    date = ["run_date=2026-11-20"]
    first = load(RetrieveConfig, ROOT / "configs/retrieve/corpus.yaml", date)
    rerank = load(RerankConfig, ROOT / "configs/rerank/retrieved.yaml", date)
    assert rerank.input.path == f"{first.output.path}candidates/"
    for config in (first, rerank):
        assert config.reuse == config.output.path.replace("2026-11-20", "{previous_run_date}")
    text = (ROOT / "docs/kubernetes-documents.md").read_text()
    assert "configs/retrieve/corpus.yaml" in text
    assert "configs/rerank/retrieved.yaml" in text


def test_the_tutorials_yaml_files_are_what_their_commands_take(tmp_path: Path) -> None:
    kinds: list[Any] = [RerankConfig, RetrieveConfig, RerankConfig]  # cascade.yaml, first.yaml, job.yaml
    for kind, whole in zip(kinds, blocks("docs/tutorial.md", "yaml"), strict=True):
        (tmp_path / "job.yaml").write_text(whole)
        load(kind, tmp_path / "job.yaml", [])


def test_the_endpoints_yaml_is_its_args() -> None:
    whole = next(block for block in blocks("docs/serving.md", "yaml") if "api:" in block)
    ServeConfig.model_validate(yaml.safe_load(whole))
