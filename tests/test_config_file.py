from pathlib import Path

import pytest

from pipeline import config_file
from pipeline.errors import ConfigError
from pipeline.reranking.config import RerankConfig
from tests.reranking.test_config import GOOD, load, refuse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "shards: 3\n", "job.yaml line 7: shards: there is no such field"),
        (GOOD.replace("path: in/", "pth: in/"), "job.yaml line 1: input.path: is required"),
        (GOOD.replace("path: in/", "pth: in/"), "job.yaml line 2: input.pth: there is no such field"),
        (
            GOOD + "  max_length: '512'\n",
            "job.yaml line 7: scorer.max_length: Input should be a valid integer, not '512'",
        ),
        (
            GOOD + "  dtype: fp16\n",
            "job.yaml line 7: scorer.dtype: Input should be 'float32', 'bfloat16' or 'float16'",
        ),
        (GOOD + "actors: {min: 3, max: 2}\n", "job.yaml line 7: actors: min 3 is above max 2"),
        (GOOD + "shard_pairs: 0\n", "line 7: shard_pairs: Input should be greater than 0, not 0"),
        (GOOD + "shard_pairs: 1\nshard_pairs: 2\n", "line 8: shard_pairs stands there a second time"),
        (GOOD.replace("path: in/", "path: in/\n  format: trec"), "line 1: input: format trec holds ids only"),
        (
            GOOD.replace("path: out/", "path: out/\n  keep_columns: {rank: rank}"),
            "the run has a rank of its own",
        ),
        ("", "job.yaml: needs the fields input, output and scorer"),
        ("- a\n", "job.yaml: needs the fields"),
        ("a: [", "job.yaml: not YAML"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    assert message in refuse(tmp_path, text)


def test_a_byte_order_mark_is_no_text_and_utf16_is_named(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(GOOD.replace("path: in/", "path: 熊/").encode("utf-8-sig"))
    assert config_file.load(RerankConfig, path, []).input.path == "熊/"
    path.write_bytes(GOOD.encode("utf-16"))
    with pytest.raises(ConfigError, match=r"job.yaml: not UTF-8 text; .* iconv -f UTF-16 -t UTF-8"):
        config_file.load(RerankConfig, path, [])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: No such file"):
        config_file.load(RerankConfig, tmp_path / "nowhere.yaml", [])


def test_overrides_replace_one_field(tmp_path: Path) -> None:
    overrides = (
        "scorer.model=other/model",
        "actors.num_gpus=0.5",
        "output.top_k=null",
        "input.columns.query=q",
    )
    config = load(tmp_path, GOOD, *overrides)
    assert config.scorer.model == "other/model"
    assert config.actors.num_gpus == 0.5
    assert config.input.columns.query == "q"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scorer.model", "write it as field.subfield=value"),
        ("scorer.model.x=1", "model is a value, it has no fields"),
        ("scorer.modle=x", "--set: scorer.modle: there is no such field"),
        ("shard_pairs=many", "shard_pairs: Input should be a valid integer, not 'many'"),
    ],
)
def test_wrong_overrides_are_named(tmp_path: Path, override: str, message: str) -> None:
    assert message in refuse(tmp_path, GOOD, override)


def test_an_override_fills_an_empty_section(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "actors:\n", "actors.max=2").actors.max == 2
