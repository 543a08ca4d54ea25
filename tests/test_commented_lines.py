"""Lines of YAML that are there to be used: they begin with `#` and a key, and are right when the `#` is gone.

A blank behind the `#` would put them one column too far.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.reranking.config import RerankConfig
from pipeline.retrieval.config import RetrieveConfig
from serve.config import ServeConfig
from tests.conftest import ROOT
from tests.test_docs import PAGES, blocks

FILES = [*ROOT.glob("configs/**/*.yaml"), *PAGES]
USED = re.compile(r"( *)#([A-Za-z][\w.]*:.*)")
BEHIND = re.compile(r"( *)#( [ #].*)")
"""More of a list or of a field that was begun so."""


def used(text: str) -> str:
    """With all these lines. The null in whose place one stands is gone."""
    lines: list[str] = []
    goes_on = False
    for line in text.splitlines():
        if match := USED.fullmatch(line):
            key = f"{match[1]}{match[2].split(':')[0]}: null"
            lines = [before for before in lines if not before.startswith(key)]
        elif goes_on:
            match = BEHIND.fullmatch(line)
        goes_on = match is not None
        lines.append(f"{match[1]}{match[2]}" if match else line)
    return "\n".join(lines)


def yaml_of(file: Path) -> list[str]:
    if file.suffix == ".yaml":
        return [file.read_text()]
    return blocks(str(file.relative_to(ROOT)), "yaml")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_without_its_sign_a_line_is_right(file: Path) -> None:
    for text in yaml_of(file):
        list(yaml.safe_load_all(used(text)))
        assert not re.findall(r"^ *# [a-z]\w*:(?: .*)?$", used(text), re.MULTILINE), "a blank too many"


def read(file: str, part: str = "") -> Any:
    [text] = [text for text in yaml_of(ROOT / file) if part in text]
    assert used(text) != text
    return yaml.safe_load(used(text))


def test_with_these_lines_it_is_what_its_command_takes() -> None:
    endpoint = ServeConfig.model_validate(read("configs/serve/rerank.yaml")["applications"][0]["args"])
    assert (endpoint.api.replicas, endpoint.models["minilm"].aliases) == (2, ("rerank-v3.5",))
    cascade = read("configs/rerank/corpus.yaml")
    del cascade["scorer"], cascade["fuse"]
    cascade["run_date"] = "2026-11-20"
    levels = RerankConfig.model_validate(cascade).levels
    assert levels is not None
    assert [level.keep for level in levels] == [30, None]
    first = RetrieveConfig.model_validate(read("docs/tutorial.md", "sources:"))
    assert list(first.sources) == ["words", "minilm"]


def test_with_these_lines_a_manifest_has_them_in_their_places() -> None:
    head = read("configs/kuberay/rerank-job.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert head["metadata"]["labels"] == {"azure.workload.identity/use": "true"}
    needed = head["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert needed["nodeSelectorTerms"][0]["matchExpressions"][0]["operator"] == "DoesNotExist"
