"""Whether a cluster, told from its nodes, can hold replicas; test_app.py sees a rollout refused on Ray."""

from typing import Any

import pytest
import ray

from pipeline.capacity import Node
from serve import room
from serve.config import ModelConfig
from serve.room import mistakes_in_room

SCORER = {"scorer": {"model": "m"}}
GPU = {"num_gpus": 1}
OF_NO_AUTOSCALER = {"node_abc"}


@pytest.fixture(autouse=True)
def laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two CPUs, and a Ray that no autoscaler watches."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(room, "_TOLD_WITHIN_S", 0)
    monkeypatch.setattr(room, "nodes", lambda: [Node(2, 0, {})])
    monkeypatch.setattr(room, "_kinds", lambda: OF_NO_AUTOSCALER)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "abc"}])


def mistakes(model: dict[str, Any]) -> list[str]:
    return list(mistakes_in_room({"tiny": ModelConfig.model_validate(model)}))


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (SCORER | {"replicas": {"num_cpus": 2, "max": 8}}, []),
        (SCORER | {"replicas": GPU}, ["args.models.tiny.replicas"]),
        (SCORER | {"replicas": {"num_cpus": 3, "min": 0}}, ["args.models.tiny.replicas"]),
        (SCORER | {"replicas": {"label_selector": {"zone": "a"}}}, ["args.models.tiny.replicas"]),
        (
            {"levels": [SCORER | {"keep": 1}, SCORER | {"replicas": GPU}]},
            ["args.models.tiny.levels.1.replicas"],
        ),
        ({"levels": [SCORER | {"keep": 1}, SCORER], "replicas": GPU}, ["args.models.tiny.replicas"]),
    ],
)
def test_a_replica_that_no_node_can_hold_is_named(model: dict[str, Any], fields: list[str]) -> None:
    assert [mistake.partition(":")[0] for mistake in mistakes(model)] == fields


def test_the_message_says_what_the_cluster_has() -> None:
    assert mistakes(SCORER | {"replicas": GPU}) == [
        "args.models.tiny.replicas: a replica of num_cpus 1, num_gpus 1 can't be held by the cluster: it has"
        " 2 CPUs and 0 GPUs on 1 node. Lower num_cpus or num_gpus, or add nodes"
    ]


@pytest.mark.parametrize("kinds", [{"head", "gpu-workers"}, {"node_abc", "gpu-workers"}, set()])
def test_nothing_is_refused_where_nodes_may_join(monkeypatch: pytest.MonkeyPatch, kinds: set[str]) -> None:
    monkeypatch.setattr(room, "_kinds", lambda: kinds)
    assert mistakes(SCORER | {"replicas": GPU}) == []


def test_nothing_is_refused_on_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert mistakes(SCORER | {"replicas": GPU}) == []


def test_where_no_ray_runs_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    assert mistakes(SCORER | {"replicas": GPU}) == []
