"""What a job costs, before and after: the arithmetic, and what the dry run and the summary say."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import actor_hours
from pipeline.actor_hours import Work, actors_by, hours_until, time_of
from pipeline.errors import ConfigError, InputError, ModelError
from pipeline.placement import JobActors
from pipeline.rerank import main
from pipeline.reranking import dry_run, flow
from tests.conftest import TINY
from tests.reranking.jobs import config

NOON = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
PRICED: dict[str, Any] = {"actors": {"price_per_hour": 3.6}}


@pytest.mark.parametrize(
    ("text", "hours"),
    [("18:00", 6), ("12:30", 0.5), ("12:00", 24), ("9:15", 21.25), ("6h", 6), ("0.5h", 0.5)],
)
def test_the_time_until_then(text: str, hours: float) -> None:
    assert hours_until(text, NOON) == hours


@pytest.mark.parametrize("text", ["25:00", "18", "6 pm", "18:60", "-1h"])
def test_a_time_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"--by {text}: needs a time of day such as 18:00, or hours"):
        hours_until(text, NOON)


def test_actors_are_those_whose_shards_are_done_in_time() -> None:
    work = Work(shards=100, actor_hours=(100 / 1.1,))  # an hour a shard, with what is kept for uneven ones
    start = 5 / 60
    assert work.hours_by([10]) == pytest.approx(10 + start)
    assert work.hours_by([99]) == pytest.approx(2 + start)  # one actor has two shards
    assert work.actors_within(10.1) == [10]
    assert work.actors_within(10) == [12]  # nine shards each
    assert work.actors_within(2.5) == [50]
    assert work.actors_within(1.05) is None
    assert work.actors_within(0.01) is None


@pytest.mark.parametrize("hours", [3, 5.5, 26])
def test_the_actors_of_a_cascade_are_done_in_time(hours: float) -> None:
    work = Work(shards=60, actor_hours=(20, 0, 120 / 7))
    needed = work.actors_within(hours)
    assert needed is not None
    assert work.hours_by(needed) <= hours
    fewer = [max(1, number - 1) for number in needed]
    assert fewer == needed or work.hours_by(fewer) > hours or needed == [1, 1, 1]


def test_the_time_is_that_of_actors_or_of_the_process() -> None:
    pools, work = [JobActors(max=4)], Work(shards=4, actor_hours=(2,))
    told = "38.0 minutes by 4 actors (actors.max), 5 minutes of it for the start"
    assert time_of(pools, work, "ray_data") == f"about 2.0 hours of actors; {told}"
    assert time_of(pools, work, "here") == f"about 2.0 hours in this process; on a cluster {told}"
    by = "6h is in 6.0 hours"
    assert actors_by("6h", 6, pools, work, "ray_data").startswith(f"{by}: needs 1 actor ")
    assert actors_by("6h", 6, pools, work, "here").startswith(f"{by}: on a cluster it needs 1 actor ")


def test_a_billion_pairs_by_six(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At 0.001 pairs/s 32 pairs are 8.9 hours of one actor; shards of 8 are 2.2 hours."""
    plan = dry_run.describe(config(table, actors={"price_per_hour": 2.5, "num_cpus": 4}), "0.001", "6h")
    assert "speed    0.001 pairs/s and " in plan
    assert "time     about 8.9 hours in this process; on a cluster 9.9 hours by 1 actor (actors.max)," in plan
    assert "cost     about 22.22, 694,444.00 a million pairs, by actors.price_per_hour" in plan
    assert (
        "by       6h is in 6.0 hours: on a cluster it needs 2 actors (8 CPUs), set actors.max to that" in plan
    )
    assert "it needs 1 actor (1 CPUs), which the config allows" in dry_run.describe(
        config(table), "0.001", "20h"
    )
    assert "too soon for one shard, however many actors" in dry_run.describe(config(table), "0.001", "1h")
    assert "cost     not told: set actors.price_per_hour" in dry_run.describe(config(table), "1")
    assert "speed" not in dry_run.describe(config(table))
    job = table.parent / "job.json"
    job.write_text(config(table).model_dump_json(exclude_defaults=True))
    assert main(["--config", str(job), "--dry-run", "--speed", "0.001", "--by", "20h"]) == 0
    assert "by       20h is in 20.0 hours" in capsys.readouterr().out
    assert main(["--config", str(job), "--by", "20h"]) == 2
    assert "--speed and --by are of a plan: add --dry-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("how_fast", "by", "told"),
    [
        ("0", None, "--speed 0: needs pairs/s above 0"),
        ("nan", None, "--speed nan: needs pairs/s above 0"),
        ("1e-320", None, "--speed 1e-320: needs pairs/s above 0, 1e-06 or more"),
        (None, "6h", "--by 6h: how fast is an actor?"),
        ("out/{previous_run_date}/", None, "name the run of one date"),
        ("nowhere", None, "--speed nowhere: no finished run of rerank lies there, nor is it `measure` or a"),
    ],
)
def test_a_speed_that_is_none(table: Path, how_fast: str | None, by: str | None, told: str) -> None:
    with pytest.raises((ConfigError, InputError), match=re.escape(told)):
        dry_run.describe(config(table), how_fast, by)


def test_the_summary_tells_what_was_paid(table: Path) -> None:
    summary = flow.run(config(table, **PRICED))
    worked_s = summary.score_s + summary.encode_s  # on CPUs the actors encode for themselves
    assert summary.actor_hours == pytest.approx(worked_s / 3600, rel=1e-4)
    assert summary.actor_pairs_per_s == pytest.approx((32 - summary.copies) / worked_s, rel=1e-4)
    assert summary.cost == pytest.approx(worked_s / 1000, rel=1e-4)
    assert summary.cost_per_million_pairs == pytest.approx(worked_s / 1000 / 32 * 1e6, rel=1e-4)
    told = re.search(
        r"had work for \S+ s, all starts together: \S+ pairs/s an actor\nThis cost (\S+)"
        r" \(actors.price_per_hour x (\S+) hours\), (\S+) per million pairs of the run$",
        summary.as_text(),
        re.MULTILINE,
    )
    assert told is not None
    cost, hours, per_million = (float(number.replace(",", "")) for number in told.groups())
    assert cost == pytest.approx(3.6 * hours, rel=1e-2)
    assert per_million == pytest.approx(cost / 32 * 1e6, rel=1e-2)
    unpriced = flow.run(config(table, "unpriced"))
    assert (unpriced.cost, unpriced.cost_per_million_pairs) == (None, None)
    assert unpriced.config_fingerprint == summary.config_fingerprint


def test_the_speed_of_a_former_run(table: Path) -> None:
    summary = flow.run(config(table, "former"))
    former = str(table.parent / "former")
    told = dry_run.describe(config(table), former)
    tokens_per_s = summary.tokens / (summary.score_s + summary.encode_s)
    assert (
        f" pairs/s and {tokens_per_s:,.0f} tokens/s an actor (of the run in {former}, which scored only"
        in told
    )
    assert f" {32 - summary.copies} pairs itself, too few to tell: use --speed measure)" in told
    others: list[tuple[dict[str, Any], str]] = [
        ({"dtype": "bfloat16"}, "scorer.dtype is float32, not bfloat16"),
        ({"model": f"{TINY}-v2-gemma"}, "scorer has other weights"),
    ]
    for scorer, difference in others:
        with pytest.raises(InputError, match=re.escape(f"that run's {difference}; its speed")):
            dry_run.describe(config(table, scorer=scorer), former)
    flow.run(config(table, "reused", reuse=former))
    with pytest.raises(InputError, match="that run scored nothing itself"):
        dry_run.describe(config(table), str(table.parent / "reused"))


def test_what_is_left_goes_at_the_speed_of_what_is_done(table: Path) -> None:
    flow.run(config(table))
    assert "(of the 4 shards that are done)" in (finished := dry_run.describe(config(table)))
    assert "time     " not in finished
    (table.parent / "out/_SUCCESS").unlink()
    (table.parent / "out/_manifest/done/shard-000001.json").unlink()
    told = dry_run.describe(config(table, **PRICED))
    assert "(of the 3 shards that are done)" in told
    assert "time     about " in told


def test_the_speed_is_measured(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_hours, "_MEASURED_S", 0.0)
    levels = [{"scorer": {"model": TINY, "device": "cpu"}, "keep": 3}, {"scorer": {"model": TINY}, "keep": 2}]
    told = dry_run.describe(config(table, levels=levels), "measure", "6h")
    assert re.search(
        r"speed    level 1: [\d,.]+ pairs/s and [\d,]+ tokens/s an actor \(measured here\)", told
    )
    assert "needs 1 + 1 actors (2 CPUs)" in told
    assert "cost     not told: set the levels' actors.price_per_hour" in told
    with pytest.raises(ConfigError, match="each level has a speed of its own"):
        dry_run.describe(config(table, levels=levels), "3")
    on_gpu = config(table, scorer={"device": "auto"}, actors={"num_gpus": 1.0})
    with pytest.raises(
        ModelError, match=r"--speed measure: .*device cuda: .*; measure on a machine like the act"
    ):
        dry_run.describe(on_gpu, "measure")


def test_tokens_are_told_of_all_pairs_and_of_those_that_are_read(table: Path) -> None:
    rows = pq.read_table(table).to_pylist()
    pq.write_table(pa.Table.from_pylist(rows[:4]), table / "part-0.parquet")
    equal = [{**row, "passage_id": f"{row['passage_id']}-{copy}"} for row in rows[:4] for copy in range(3)]
    pq.write_table(pa.Table.from_pylist(equal), table / "part-1.parquet")
    plan = dry_run.describe(config(table, shard_pairs=64))
    found = re.search(
        r"about (\d+) in all, estimated from 16 pairs: 25\.0% need scoring, (\d+) tokens each; the others"
        r" take their score from an equal pair$",
        plan,
        re.MULTILINE,
    )
    assert found is not None
    tokens, of_read = map(int, found.groups())
    assert of_read == round(tokens / 4)
    flow.run(config(table, "previous", shard_pairs=64))
    again = dry_run.describe(config(table, reuse=str(table.parent / "previous")))
    assert f"reuse    100.0% of pairs have their score in {table.parent / 'previous'}" in again
