import re
from itertools import product
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError
from ray._private.label_utils import validate_label_selector

from pipeline.errors import ConfigError
from pipeline.levels import FuseConfig
from pipeline.placement import ActorsConfig, JobActors
from pipeline.reranking.cascade import LevelConfig
from pipeline.reranking.config import RerankConfig, load_config
from pipeline.scoring import ScorerConfig
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.family import load_family
from pipeline.tables.config import InputConfig
from pipeline.tables.input.limits import Limits
from pipeline.tables.output.config import OutputConfig
from pipeline.verification.published import PUBLISHED
from tests.conftest import DATA, TINY

GOOD = """\
input:
  path: in/
output:
  path: out/
scorer:
  model: some/model
"""
CONFIGS = sorted((Path(__file__).parents[2] / "configs/rerank").glob("*.yaml"))


def load(tmp_path: Path, text: str, *overrides: str) -> RerankConfig:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    return load_config(path, list(overrides))


def refuse(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_configs_of_the_repository_load(path: Path) -> None:
    dated = ["run_date=2026-11-20"] if "{run_date}" in path.read_text() else []
    assert load_config(path, dated).cascade[0].scorer.model


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, GOOD)
    assert (config.shard_pairs, config.actors.max, config.output.top_k) == (20_000, 1, None)
    assert config.input.columns.passage_id == "passage_id"


def test_the_fingerprint_is_of_what_decides_the_output(tmp_path: Path) -> None:
    base = load(tmp_path, GOOD).fingerprint
    assert (
        load(tmp_path, GOOD, "actors.max=8", "output.path=elsewhere", "input.path=moved").fingerprint == base
    )
    assert load(tmp_path, GOOD, "scorer.max_length=256").fingerprint != base


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (("scorer.device=cuda",), "scorer.device cuda needs actors that hold a GPU: set actors.num_gpus"),
        (("scorer.device=cpu", "actors.num_gpus=1"), "holds GPUs that scorer.device cpu leaves idle"),
        (("scorer.device=cuda:1", "actors.num_gpus=1"), "Ray deals the GPUs out to the actors"),
        (("scorer.cutoff_layers=[3, 4, 3]",), "cutoff_layers [3, 4, 3]: a run has a column a layer"),
        (
            ("scorer.cutoff_layers=[3, 4]", "output.keep_columns={score_4: x}"),
            "output.keep_columns: the run has a score_4 of its own",
        ),
        (
            ("output.keep_columns.raw_score=x",),  # also of a run that has none: its readers would rank by it
            "output.keep_columns: raw_score is a run's own; keep the input's under another name",
        ),
        (("fuse={}",), "fuse: one scorer can be mixed with the first stage alone: set first_stage: 1"),
        (("fuse={first_stage: 1, weights: [1, 2]}",), "fuse.weights: needs 1 number, the scorer's"),
        (("fuse.first_stage=yes",), "fuse.first_stage"),
        (
            ("fuse.first_stage=1", "output.keep_columns={scorer_score: x}"),
            "output.keep_columns: the run has a scorer_score of its own",
        ),
        (
            ("actors.label_selector.区=a",),
            "--set: actors.label_selector: 区: a is no selector of Ray's labels",
        ),
        (
            ("actors.label_selector.zone=a b!",),
            "actors.label_selector: zone: ab! is no selector of Ray's labels",
        ),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path: Path, override: tuple[str, ...], message: str) -> None:
    assert message in refuse(tmp_path, GOOD, *override)


def test_auto_means_the_gpu_that_ray_gave(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).cascade[0].scorer.device == "cpu"
    assert load(tmp_path, GOOD, "actors.num_gpus=0.5").cascade[0].scorer.device == "cuda"


def test_the_order_of_kept_columns_is_part_of_the_output(tmp_path: Path) -> None:
    one, other = (
        load(tmp_path, GOOD, f"output.keep_columns={{{names}}}").determining_fields()
        for names in ("a: x, b: y", "b: y, a: x")
    )
    assert one != other


OF_A_MODEL = [file for file in CONFIGS if file.stem.startswith("bge-reranker")]


@pytest.mark.parametrize("file", OF_A_MODEL, ids=lambda file: file.stem)
def test_a_models_config_has_options_that_its_family_knows(file: Path) -> None:
    config = load_config(file, [])
    assert config.scorer is not None
    assert (config.scorer.model, config.output.path) == (f"BAAI/{file.stem}", f"out/{file.stem}/")
    stand_in = DATA / f"tiny-{file.stem}"
    checkpoint = Checkpoint("tiny", stand_in if stand_in.is_dir() else Path(TINY))
    smaller = {"cutoff_layers": (4,), "compress_layers": (4,)}
    options = config.scorer.model_dump(exclude_defaults=True)
    layers = {name: value for name, value in smaller.items() if name in options}
    assert load_family(checkpoint, config.scorer.model_copy(update=layers)).handles(checkpoint)
    assert PUBLISHED[file.stem].options.items() <= config.scorer.model_dump().items()


def test_one_config_shows_every_field() -> None:
    text = (CONFIGS[0].parent / "corpus.yaml").read_text()
    sections: list[type[BaseModel]] = [RerankConfig, InputConfig, Limits, OutputConfig, ScorerConfig]
    sections += [LevelConfig, FuseConfig, JobActors]
    for section in sections:
        for field in section.model_fields:
            assert re.search(rf"\b{field}:", text), field


LABELS = ["a", "A-1_b.c", "-a", "a-", "", "a" * 63, "a" * 64, "é", "a b", "x/y", "x.y/z", "/z", "z/", "x/y/z"]
SELECTORS = [*LABELS, "!a", "in(a,b)", "!in(a)", "in()", "in(a", "!!a", "(a)", "in(a,é)"]


def test_label_selectors_are_refused_where_ray_would() -> None:
    for key, value in product(LABELS, SELECTORS):
        is_rays = validate_label_selector({key: value.replace(" ", "")}) is None
        try:
            ActorsConfig(label_selector={key: value})
            taken = True
        except ValidationError:
            taken = False
        assert taken == is_rays, (key, value)


LEVELS = """\
input:
  path: in/
output:
  path: out/
levels:
  - scorer: {model: small/model}
    keep: 100
  - scorer:
      model: large/model
    actors: {num_gpus: 0.5}
"""


def test_levels_take_the_jobs_actors_or_their_own(tmp_path: Path) -> None:
    config = load(tmp_path, LEVELS, "actors.max=4")
    assert config.scorer is None
    assert [level.scorer.device for level in config.cascade] == ["cpu", "cuda"]
    assert [level.actors.max for level in config.cascade] == [4, 1]
    assert [(level.sees, level.keep) for level in config.cascade] == [(None, 100), (100, None)]
    assert config.run_columns == ["level_0_score", "level_0_rank", "level_1_score", "level_1_rank"]
    fields = config.determining_fields()
    assert fields["levels.0.keep"] == 100
    assert not [name for name in fields if "actors" in name or "model" in name or name.startswith("scorer")]


def test_a_scorer_alone_says_nothing_of_levels(tmp_path: Path) -> None:
    assert not [name for name in load(tmp_path, GOOD).determining_fields() if "level" in name]


def test_the_first_stage_in_a_mix_is_part_of_the_job_and_of_no_other(tmp_path: Path) -> None:
    plain, mixed = load(tmp_path, GOOD), load(tmp_path, GOOD, "fuse={method: weighted, first_stage: 0.5}")
    assert not [name for name in plain.determining_fields() if "fuse" in name]
    before = plain.determining_fields()
    new = {name: value for name, value in mixed.determining_fields().items() if name not in before}
    assert new == {
        "fuse.method": "weighted",
        "fuse.k": 60,
        "fuse.weights": None,
        "fuse.first_stage": 0.5,
    }
    assert mixed.run_columns == ["scorer_score"]
    assert (plain.kept, mixed.kept) == ({}, {"first_stage_score": "first_stage_score"})
    named = load(tmp_path, GOOD, "fuse.first_stage=1", "output.keep_columns.first_stage_score=bm25")
    assert named.kept == {"first_stage_score": "bm25"}
    # As records of before the field have it.
    cascade = load(tmp_path, LEVELS + "    fuse: {weights: [1, 2]}\n")
    assert "levels.1.fuse.first_stage" not in cascade.determining_fields()
    assert cascade.determining_fields()["levels.0.fuse"] is None
    assert "fuse goes with scorer; in a cascade a level has it" in refuse(
        tmp_path, LEVELS, "fuse.first_stage=1"
    )


def test_a_date_is_put_into_the_models_of_levels(tmp_path: Path) -> None:
    text = LEVELS.replace("large/model", "models/{run_date}")
    config = load(tmp_path, text, "run_date=2026-11-20")
    assert config.cascade[1].scorer.model == "models/2026-11-20"
    assert "levels.1.scorer.model models/{run_date} needs the date" in refuse(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("levels:", "scorer: {model: some/model}\nlevels:", "scorer (one for all candidates) or levels (a"),
        ("path: out/\n", "path: out/\n  top_k: 5\nlevels: []\nother:\n", "levels: needs one value or more"),
        ("    keep: 100\n", "", "levels.0.keep: say how many candidates of each query go on"),
        ("keep: 100", "keep: 0", "job.yaml line 7: levels.0.keep: "),
        (
            "    actors:",
            "    keep: 200\n    actors:",
            "levels.1.keep 200: only 100 candidates of each query come",
        ),
        ("    actors:", "    drop: true\n    actors:", "levels.1: drop leaves out what keep cuts"),
        ("keep: 100", "keep: 100\n    fuse: {}", "levels.0.fuse: there is no level before to fuse with"),
        ("    actors:", "    fuse: {weights: [1]}\n    actors:", "levels.1.fuse.weights: needs 2 numbers"),
        (
            "      model: large/model",
            "      model: m\n      use_fp16: true",
            "no such field; here it is dtype",
        ),
        (
            "model: large/model",
            "model: large/model\n      device: cpu",
            "that levels.1.scorer.device cpu leaves",
        ),
        (
            "path: out/",
            "path: out/\n  keep_columns: {level_1_rank: x}",
            "the run has a level_1_rank of its own",
        ),
        ("model: small/model", "model: small/model, device: cuda", "set actors.num_gpus"),
    ],
)
def test_levels_that_lead_nowhere_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = LEVELS.replace(old, new)
    assert text != LEVELS
    text = text.split("other:")[0]
    assert message in refuse(tmp_path, text)


def test_equal_keeps_are_taken_where_a_later_level_makes_use_of_all(tmp_path: Path) -> None:
    three = LEVELS.replace("  - scorer:\n", "  - {scorer: {model: m}, keep: 100}\n  - scorer:\n")
    assert "levels.1.keep 100: only 100 candidates" in refuse(tmp_path, three)
    fused = three + "    fuse: {method: rrf}\n"
    assert load(tmp_path, fused).levels


def test_a_job_says_how_it_scores(tmp_path: Path) -> None:
    neither = GOOD.replace("scorer:\n  model: some/model\n", "")
    assert "scorer (one for all candidates) or levels (a cascade): give one of them" in refuse(
        tmp_path, neither
    )
