"""Whether the cluster can hold a replica of each model, told before a rollout ends old ones."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.experimental import internal_kv

from pipeline.capacity import described, fit, nodes
from pipeline.placement import ActorsConfig
from serve.config import ModelConfig, ReplicasConfig

_TOLD_WITHIN_S = 15.0
"""Of a Ray that has just started."""
_ASKED_AGAIN_S = 0.5


def mistakes_in_room(models: Mapping[str, ModelConfig]) -> Iterator[str]:
    """Each replica that no node can hold, with its field. None where no Ray runs or nodes may join."""
    lacking = list(_lacking(models)) if ray.is_initialized() else []
    if lacking and not _may_grow():
        yield from lacking


def _lacking(models: Mapping[str, ModelConfig]) -> Iterator[str]:
    found = nodes()
    for name, model in models.items():
        for field, replicas in _pools(model):
            one = ActorsConfig(
                num_cpus=replicas.num_cpus,
                num_gpus=replicas.num_gpus,
                label_selector=replicas.label_selector,
            )
            if not fit(found, one, encodes=False).actors:
                yield (
                    f"args.models.{name}.{field}: a replica of {asked(replicas)} can't be held by the"
                    f" cluster: it has {described(found)}. Lower num_cpus or num_gpus, or add nodes"
                )


def _pools(model: ModelConfig) -> Iterator[tuple[str, ReplicasConfig]]:
    """By the field where they stand."""
    if model.levels is None or any(level.replicas is None for level in model.levels):
        yield "replicas", model.replicas
    for number, level in enumerate(model.levels or ()):
        if level.replicas is not None:
            yield f"levels.{number}.replicas", level.replicas


def asked(replicas: ReplicasConfig) -> str:
    """What one takes of a node: `num_cpus 1, num_gpus 1`."""
    labels = f", label_selector {replicas.label_selector}" if replicas.label_selector else ""
    return f"num_cpus {replicas.num_cpus:g}, num_gpus {replicas.num_gpus:g}{labels}"


def _may_grow() -> bool:
    """Whether nodes may join by themselves. Also where that can't be known.

    On Kubernetes pods join late even where nothing scales. Elsewhere Ray's monitor tells the kinds of the
    nodes: without an autoscaler, each node is a kind of its own.
    """
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return True
    of_cluster: Callable[[], list[dict[str, Any]]] = ray.nodes  # Ray 2.60 gives it no types
    deadline = time.monotonic() + _TOLD_WITHIN_S
    while not (kinds := _kinds()):
        if time.monotonic() > deadline:
            return True
        time.sleep(_ASKED_AGAIN_S)
    return not kinds <= {f"node_{node['NodeID']}" for node in of_cluster()}


def _kinds() -> set[str]:
    """Of the nodes, as the monitor told them last; none before it has."""
    status = internal_kv._internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report = json.loads(status).get("autoscaler_report") if status else None
    return set(report["active_nodes"]) if report else set()
