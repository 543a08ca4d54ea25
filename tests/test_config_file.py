from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import config_file
from pipeline.errors import ConfigError
from pipeline.mining.config import MineConfig
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import LongPassages
from tests.reranking.test_config import GOOD, load, refuse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "shards: 3\n", "job.yaml line 7: shards: there is no such field"),
        (
            GOOD + "top_k: 3\n",
            "job.yaml line 7: top_k: there is no such field; there are input.top_k and output.top_k",
        ),
        (
            GOOD.replace("path: out/", "path: out/\n  columns: {}\n  reuse: x"),
            "output.columns: there is no such field; did you mean keep_columns? There is input.columns\n",
        ),
        (
            GOOD.replace("path: out/", "path: out/\n  columns: {}\n  reuse: x"),
            "output.reuse: there is no such field; there is reuse at the top level",
        ),
        (
            "levels: [{scorer: {model: x, num_gpus: 1}}]\n",
            "levels.0.scorer.num_gpus: there is no such field;"
            " there are levels.0.actors.num_gpus and actors.num_gpus",
        ),
        (
            "levels: [{scorer: {model: x, cutoff_layers: 28}}]\n",
            "levels.0.scorer.cutoff_layers: needs a list, such as [28], not 28",
        ),
        ("levels: {}\n", "levels: needs a list, such as [{field: value}]"),
        (GOOD.replace("path: in/", "pth: in/"), "job.yaml line 1: input.path: is required"),
        (GOOD.replace("path: in/", "pth: in/"), "job.yaml line 2: input.pth: there is no such field"),
        (
            GOOD + "  max_length: '512'\n",
            "job.yaml line 7: scorer.max_length: Input should be a valid integer, not '512'",
        ),
        (
            GOOD + "  dtype: fp16\n",
            "job.yaml line 7: scorer.dtype: Input should be 'float32', 'bfloat16', 'float16' or 'auto'",
        ),
        (GOOD + "actors: {min: 3, max: 2}\n", "job.yaml line 7: actors: min 3 is above max 2"),
        (
            GOOD + "actors: {num_gpus: 1.5}\n",
            "job.yaml line 7: actors.num_gpus: 1.5 GPUs: Ray gives a part of",
        ),
        (GOOD + "shard_pairs: 0\n", "line 7: shard_pairs: Input should be greater than 0, not 0"),
        (
            GOOD + "a: &a {min: 1}\nactors: {<<: *a, max: 2, max: 3}\n",
            "line 8: actors.max stands there a second time",
        ),
        (GOOD + "shard_pairs: 1\nshard_pairs: 2\n", "line 8: shard_pairs stands there a second time"),
        (GOOD.replace("path: in/", "path: in/\n  format: trec"), "line 1: input: format trec holds ids only"),
        (
            GOOD.replace("path: out/", "path: out/\n  keep_columns: {rank: rank}"),
            "rank is a run's own",
        ),
        ("", "job.yaml: needs the fields input and output; see configs/"),
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
    assert config.cascade[0].scorer.model == "other/model"
    assert config.actors.num_gpus == 0.5
    assert config.input.columns.query == "q"


AS_TYPED = [
    "/x/run #1", "1e5", "0123", "2026-11-20", "12:30", "on", "no", "~", "[x]", "{a: b}", "a: b", "- x", "'x'",
    '"x"', " x ", "x=y", "&a", "*a", "!tag", "%40", "@x", "`x`", "|", "输出", "null",
]  # fmt: skip


@pytest.mark.parametrize("text", AS_TYPED)
def test_a_text_is_taken_as_typed(tmp_path: Path, text: str) -> None:
    fields = ("output.path", "scorer.model", "input.columns.query_id", "output.keep_columns.mine")
    config = load(tmp_path, GOOD, *(f"{field}={text}" for field in fields))
    kept = config.output.keep_columns["mine"]
    assert [config.output.path, config.cascade[0].scorer.model, config.input.columns.query_id, kept] == [
        text
    ] * 4


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{}"), min_size=1))
def test_any_text_is_taken_as_typed(text: str) -> None:
    """Braces aside, which hold a placeholder in a model's name."""
    with TemporaryDirectory() as folder:
        config = load(
            Path(folder), GOOD, f"scorer.query_instruction_for_rerank={text}", f"scorer.model={text}"
        )
    null = None if text == "null" else text
    assert (config.cascade[0].scorer.query_instruction_for_rerank, config.cascade[0].scorer.model) == (
        null,
        text,
    )


def test_null_is_a_word_where_a_text_may_be_null(tmp_path: Path) -> None:
    text = GOOD + "  revision: main\n  prompt: p\n"
    config = load(tmp_path, text, "scorer.revision=null", "scorer.prompt=Null", "scorer.family=")
    assert (
        config.cascade[0].scorer.revision,
        config.cascade[0].scorer.prompt,
        config.cascade[0].scorer.family,
    ) == (None, "Null", "")


def test_what_is_no_text_is_yaml(tmp_path: Path) -> None:
    overrides = (
        "scorer.cutoff_layers=[2, 4]",
        "scorer.dtype=float16",
        "scorer.local_files_only=on",
        "scorer.compress_ratio=2",
        "output.top_k=0x10",
        "output.keep_columns={a: b}",
        "output.keep_columns.a.b=on",
        "actors.label_selector.ray.io/accelerator-type=in(A100, H100)",
        "scorer.long_passages={strategy: max}",
        "scorer.long_passages.window=7",
    )
    config = load(tmp_path, GOOD, *overrides)
    scorer = config.cascade[0].scorer
    assert (scorer.cutoff_layers, scorer.dtype, scorer.compress_ratio) == ((2, 4), "float16", 2)
    assert (scorer.local_files_only, config.output.top_k) == (True, 16)
    assert config.output.keep_columns == {"a": "b", "a.b": "on"}
    assert config.actors.label_selector == {"ray.io/accelerator-type": "in(A100,H100)"}
    assert scorer.long_passages == LongPassages(strategy="max", window=7)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("scorer.model", "write it as field.subfield=value"),
        ("scorer.model.x=1", "model is a value, it has no fields"),
        ("scorer.modle=x", "--set: scorer.modle: there is no such field"),
        ("=x", "write it as field.subfield=value"),
        ("output.keep_columns.=x", "write it as field.subfield=value"),
        ("output.nowhere.deep=on", "--set: output.nowhere: there is no such field"),
        (
            "scorer.dtype=on",
            "--set: scorer.dtype: Input should be 'float32', 'bfloat16', 'float16' or 'auto', not 'on'",
        ),
        ("scorer.cutoff_layers=16", "scorer.cutoff_layers: needs a list, such as [16], not 16"),
        ("levels={keep: 1}", "levels: needs a list, such as [{field: value}]"),
        ("input.columns=qid", "input.columns: needs a mapping"),
        ("shard_pairs=[", "--set shard_pairs=[: not YAML"),
        ("shard_pairs=\x07", "not YAML: unacceptable character #x0007"),
        ("scorer.model=a\udc80", r"scorer.model: 'a\udc80' is no text in Unicode"),
        (
            "output.keep_columns={a: b, a: c}",
            "--set line 1: output.keep_columns.a stands there a second time",
        ),
        ("shard_pairs=many", "shard_pairs: Input should be a valid integer, not 'many'"),
    ],
)
def test_wrong_overrides_are_named(tmp_path: Path, override: str, message: str) -> None:
    assert message in refuse(tmp_path, GOOD, override)


def test_an_override_fills_an_empty_section(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "actors:\n", "actors.max=2").actors.max == 2


BOMBS = {
    "[" * 100_000: "nests",
    "{a: " * 60 + "1" + "}" * 60: "line 1: it nests deeper than 50 levels",
    "input: &a\n  path: *a\n": "line 1: it refers to itself",
    "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
    + "".join(f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdef", "bcdefg", strict=True)): (
        "line 6: it holds more than 100000 values"
    ),
    GOOD + "shard_pairs: 1" + "0" * 30 + "\n": "shard_pairs: a number of 100 bits is beyond 64",
    GOOD
    + "shard_pairs: 1"
    + "0" * 9000
    + "\n": "line 7: 1000000000000000000000000000000000000000 can't be read: Exceeds the limit",
    GOOD + "shard_pairs: 0x1" + "0" * 9000 + "\n": "shard_pairs: a number of 36001 bits is beyond 64",
    GOOD + "actors: {num_cpus: 1.0e+400}\n": "actors.num_cpus: inf is no number that a config can hold",
    GOOD + "actors: {num_cpus: .nan}\n": "actors.num_cpus: nan is no number that a config can hold",
    GOOD + "run_date: 2026-13-45\n": "line 7: 2026-13-45 can't be read: month must be in 1..12",
    GOOD + "reuse: a\0b\n": "not YAML: unacceptable character #x0000",
    GOOD + 'reuse: "a\\ud800"\n': r"reuse: 'a\ud800' is no text in Unicode",
    GOOD + 'actors: {label_selector: {"\\ud800": a}}\n': r"actors.label_selector: '\ud800' is no text",
}


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
def test_yaml_out_of_bounds_is_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    message = refuse(tmp_path, text)
    assert BOMBS[text] in message
    assert len(message) < 300


def test_values_of_set_have_the_same_bounds(tmp_path: Path) -> None:
    for value in ("[" * 10_000, "1" + "0" * 30, "1.0e+400", "&a [*a]"):
        with pytest.raises(ConfigError, match="--set actors.num_cpus=") as error:
            load(tmp_path, GOOD, f"actors.num_cpus={value}")
        assert len(str(error.value)) < 300


def test_a_long_value_is_not_repeated_in_full(tmp_path: Path) -> None:
    assert len(refuse(tmp_path, GOOD + f"shard_pairs: [{'1, ' * 5000}]\n")) < 400


def test_overrides_reach_the_entries_of_lists(tmp_path: Path) -> None:
    text = GOOD.split("scorer:")[0] + "levels:\n  - {scorer: {model: a}, keep: 9}\n  - {scorer: {model: b}}\n"
    config = load(tmp_path, text, "levels.0.keep=5", "levels.1.scorer.model=c #1", "levels.1.actors.max=2")
    assert [level.keep for level in config.cascade] == [5, None]
    assert (config.cascade[1].scorer.model, config.cascade[1].actors.max) == ("c #1", 2)
    for wrong in ("levels.2.keep=5", "levels.first.keep=5"):
        there_is_no = f"--set {wrong}: there is no {wrong.split('.')[1]} in the list"
        message = f"{there_is_no}, which has 2 entries, counted from 0"
        assert message in refuse(tmp_path, text, wrong)
    assert "--set: levels.0.keep: Input should be" in refuse(tmp_path, text, "levels.0.keep=few")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "negatives.ranks=[200, 2]",
            "mine.yaml line 3, with --set: negatives: ranks [200, 2]: the first one",
        ),
        ("negatives.ranks=[0, 2]", "--set: negatives.ranks.0: Input should be greater than 0, not 0"),
        (
            "negatives.range_min=10",
            "--set: negatives.range_min: there is no such field; here it is negatives.r",
        ),
        ("range_for_sampling=10-210", "here it is negatives.ranks, counted from 1: 10-210 is [11, 210]"),
        ("candidate_pool=x", "here it is passages, of pipeline.retrieve"),
    ],
)
def test_an_override_is_blamed_for_what_it_says(tmp_path: Path, override: str, message: str) -> None:
    lines = [
        "input: {path: in/}",
        "positives: {first: 1}",
        "negatives:",
        "  ranks: [2, 20]",
        "output: {path: o/}",
    ]
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        config_file.load(MineConfig, tmp_path / "mine.yaml", [override])
    assert message in str(caught.value)


def test_what_is_merged_may_be_given_again(tmp_path: Path) -> None:
    levels = "levels:\n  - &l {scorer: {model: a}, keep: 10}\n  - {<<: *l, keep: 5}\n"
    text = GOOD[: GOOD.index("scorer:")] + levels
    (tmp_path / "job.yaml").write_text(text)
    made = config_file.load(RerankConfig, tmp_path / "job.yaml", [])
    assert [(level.scorer.model, level.keep) for level in made.levels or ()] == [("a", 10), ("a", 5)]
