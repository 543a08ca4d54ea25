"""The first stage on a real Ray of this machine."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from ray.data import DataContext

from pipeline.errors import InputError
from pipeline.reporting.metrics import TaskMetrics
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieval.executors import ray_data
from pipeline.retrieval.executors.ray_data import no_progress_s
from pipeline.retrieval.plan import plan
from pipeline.tables.output.tasks import Task
from tests.conftest import MINILM
from tests.retrieval.tables import bytes_of, config, make, write_texts

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("on_head")]

SOURCES = {"words": {"bm25": {}}, "minilm": {"dense": {"scorer": {"model": MINILM, "device": "cpu"}}}}
ON_ANY_DEVICE = {"minilm": {"dense": {"scorer": {"model": MINILM}}}}


def both(folder: Path, executor: str, **sections: Any) -> RetrieveConfig:
    output = {"path": str(folder / executor), "trec_run": True}
    return config(folder, sources=SOURCES, shard_passages=7, executor=executor, output=output, **sections)


def test_it_writes_the_bytes_of_a_first_stage_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Mock(wraps=TaskMetrics)
    monkeypatch.setattr(ray_data, "TaskMetrics", told)
    passages = {f"p{number}": f"text {number} of {number % 7}" for number in range(20)}
    write_texts(tmp_path, passages, {f"q{number}": f"text {number}" for number in range(5)})
    summary, alone = (make(both(tmp_path, executor)) for executor in ("ray_data", "here"))
    assert summary == alone.model_copy(update={"output": summary.output, "wall_s": summary.wall_s})
    assert bytes_of(tmp_path / "ray_data") == bytes_of(tmp_path / "here")
    # Prometheus was told of each step and its tasks: three shards of passages, one of queries.
    assert [call.args[1:] for call in told.call_args_list] == [
        *[("read", 1), ("read", 1), ("drop", 1), ("drop", 1)],
        *[("index", 3), ("statistics", 1), ("search", 1)],
        *[("share", 2), ("embed", 4), ("search", 1), ("merge", 1)],
    ]
    # Ray was told how long each step may stand still, the last one last.
    still_s = DataContext.get_current().execution_no_progress_timeout_s
    assert still_s == no_progress_s(plan(both(tmp_path, "ray_data")), "merge")


@pytest.mark.parametrize(
    ("step", "num_gpus", "by_actors"),
    [("embed", 0.0, True), ("embed", 1.0, True), ("search", 1.0, True), ("search", 0.0, False)],
)
def test_a_process_keeps_its_card(
    step: str, num_gpus: float, by_actors: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path, {"p": "a"}, {"q": "a"})
    job = plan(config(tmp_path, sources=ON_ANY_DEVICE, actors={"num_gpus": num_gpus}))
    dataset = Mock()
    monkeypatch.setattr("ray.data.from_items", Mock(return_value=dataset))
    ray_data._dataset(job, step, [Task("0", step, {"source": "minilm"})])
    ((work,), options) = dataset.map_batches.call_args
    assert (work is ray_data.Actor, "compute" in options) == (by_actors, by_actors)
    assert options["num_gpus"] == num_gpus


def test_actors_may_have_all_cpus_of_their_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They tokenize themselves: no task needs a CPU beside them."""
    asked = Mock()
    monkeypatch.setattr("pipeline.cluster.connect", asked)
    monkeypatch.setattr("pipeline.cluster.fastest_dtypes", lambda *_: [])
    write_texts(tmp_path, {"p": "a"}, {"q": "a"})
    job = plan(config(tmp_path, sources=ON_ANY_DEVICE, actors={"num_gpus": 1.0}))
    ray_data.connect(job)
    ray_data.fastest_dtypes(job, [])
    assert [call.kwargs for call in asked.call_args_list] == [{"encodes": False}] * 2


@pytest.mark.parametrize(
    ("step", "sections", "hours"),
    [
        ("embed", {"actors": {"num_gpus": 1.0}, "sources": ON_ANY_DEVICE}, 3.3),
        ("embed", {"actors": {"num_cpus": 1.0}}, 28.3),
        ("embed_shared", {"actors": {"num_cpus": 4.0}}, 7.4),
        ("index", {}, 0.8),
        ("search", {}, 1.9),
        ("search", {"shard_passages": 2_000_000}, 3.3),
        ("read", {}, 0.5),
        ("merge", {}, 0.5),
    ],
)
def test_a_step_stands_still_no_longer_than_a_task_takes(
    tmp_path: Path, step: str, sections: dict[str, Any], hours: float
) -> None:
    write_texts(tmp_path, {"p1": "one"}, {"q1": "one"})
    job = plan(config(tmp_path, **sections))
    assert round(no_progress_s(job, step) / 3600, 1) == hours
    many = replace(job, passages=replace(job.passages, rows=100_000_000))
    assert round(no_progress_s(many, step) / 3600, 1) == (6.1 if step in ("read", "merge") else hours)


def test_what_goes_wrong_in_a_task_arrives_as_itself(tmp_path: Path) -> None:
    write_texts(tmp_path, {"p1": "one", "p2": "two"}, {"q1": "one"})
    with (tmp_path / "corpus.jsonl").open("a") as stream:
        stream.write("{}\n" * 2000 + "[" * 200 + "]" * 200 + "\n")
    for _ in range(2):
        with pytest.raises(InputError, match=r"corpus.jsonl line 2003: it nests too deep"):
            make(both(tmp_path, "ray_data"))
        (tmp_path / "corpus.jsonl").touch()  # as if it had been mended: no other job's output is in the way
