"""The OpenAPI document is true: schemathesis makes requests from it, right and wrong ones, and holds the
server to what it documents: statuses, media types, bodies, keys, methods.
"""

import os
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.conftest import TINY
from tests.serve import schemathesis_hooks as hooks
from tests.serve.conftest import LAYERWISE
from tests.serve.local import LocalServer, serving

KEY = "a-key-of-16-characters"


def test_every_route_has_its_api_an_example_and_a_word_on_each_field(server: LocalServer) -> None:
    document = httpx2.get(f"{server.url}/openapi.json").json()
    described = {tag["name"] for tag in document["tags"] if tag["description"]}
    for operations in document["paths"].values():
        for method, operation in operations.items():
            assert operation["tags"]
            assert described.issuperset(operation["tags"])
            if method == "post":
                (content,) = operation["requestBody"]["content"].values()
                assert described.issuperset(content["examples"])
    fields = [
        (name, field)
        for name, schema in document["components"]["schemas"].items()
        for field, its in schema["properties"].items()
        if "description" not in its
    ]
    assert fields == []


def test_the_examples_of_the_document_are_answered(client: httpx2.Client) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for example in operations.get("post", {}).get("requestBody", {"content": {}})["content"].values():
            for body in example["examples"].values():
                assert client.post(path, json=body["value"]).status_code == 200


def test_the_server_does_what_it_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAPI_KEYS", f"team:{KEY}")
    models = {"tiny": {"model": TINY}, "layers": {"model": LAYERWISE, "cutoff_layers": [2, 3, 4]}}
    (tmp_path / "schemathesis.toml").write_text(f'[auth.openapi.HTTPBearer]\nbearer = "{KEY}"\n')
    with serving(models, keys={"env": "OPENAPI_KEYS"}) as server:
        ran = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                *("run", f"{server.url}/openapi.json", "--max-examples", "25"),
                *("--generation-deterministic", "--no-color", "--warnings", "off"),
            ],
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": hooks.__name__, "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "10 selected / 10 total" in ran.stdout
