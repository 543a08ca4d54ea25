"""A checkpoint's files of another shape are refused in one sentence that names the file."""

import json
import shutil
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModel

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.json_object import JsonObject
from tests.scoring.families.test_bi_encoder import bge_like

CONTENTS: dict[str, bytes] = {
    "a list": b"[]",
    "null": b"null",
    "a text": b'"text"',
    "a number": b"3",
    "nothing": b"",
    "cut off": b'{"a": ',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": json.dumps({"a": 1}).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "nested too deep": b'{"a": ' * 100_000 + b"1" + b"}" * 100_000,
    "an integer without end": b'{"a": ' + b"9" * 10_000 + b"}",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0f3a1b\nsize 2271071852\n",
}
FILES = [
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
    "adapter/adapter_config.json",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding model with an adapter in a folder below it."""
    path = bge_like(tmp_path_factory.mktemp("checkpoint"), "mean", normalize=True)
    adapted = get_peft_model(AutoModel.from_pretrained(path), LoraConfig(r=1, target_modules=["query"]))
    adapted.save_pretrained(str(path / "adapter"))
    return path


def score(path: Path) -> None:
    adapter = str(path / "adapter")
    Scorer(ScorerConfig(model=str(path), device="cpu", peft_path=adapter)).score([("a", "b")])


@pytest.mark.parametrize("file", FILES)
def test_files_of_another_shape_are_named(checkpoint: Path, tmp_path: Path, file: str) -> None:
    path = tmp_path / "model"
    shutil.copytree(checkpoint, path)
    if "index" in file:
        (path / "model.safetensors").unlink()
    for content in CONTENTS.values():
        (path / file).write_bytes(content)
        with pytest.raises(ModelError, match=Path(file).name) as caught:
            score(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600
    (path / file).unlink()
    (path / file).mkdir()
    with pytest.raises(ModelError, match=Path(file).name):
        score(path)


def test_a_file_that_cant_be_read_is_named(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(checkpoint, path)
    (path / "config.json").unlink()
    (path / "config.json").symlink_to("config.json")
    with pytest.raises(ModelError, match="config.json: can't be read: Too many levels of symbolic links"):
        score(path)


def test_fields_have_a_type_when_they_are_read() -> None:
    fields = JsonObject(
        Path("config.json"), {"n": 1e20, "text": "8", "flag": 1, "list": ["a", 1], "null": None}
    )
    assert fields.integer("n") == 10**20
    assert fields.integer("null") is None
    assert fields.text("text") == "8"
    for read in (fields.integer, fields.required_number, fields.flag, fields.texts, fields.object):
        with pytest.raises(ModelError, match=r"config.json: text: needs .*, not \"8\""):
            read("text")
    for name in ("flag", "list"):
        with pytest.raises(ModelError, match=f"config.json: {name}: needs "):
            (fields.flag if name == "flag" else fields.texts)(name)
    with pytest.raises(ModelError, match="config.json: null: is missing"):
        fields.required_integer("null")
