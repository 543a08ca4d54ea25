"""How many of a job's actors a cluster can hold."""

import math
import time
from typing import Any, NamedTuple

import ray

from pipeline import log
from pipeline.errors import ConfigError
from pipeline.placement import ActorsConfig

_EVERY_S = 1.0


class Node(NamedTuple):
    """A machine of the cluster that is alive."""

    cpus: float
    gpus: float
    labels: dict[str, str]


class Fit(NamedTuple):
    """What of a job's actors the cluster can hold."""

    actors: int
    """How many, up to `actors.min`; where they hold GPUs, with a CPU left for encoding."""
    lack: str
    """Why fewer than `actors.min` fit, in a sentence; empty where they all do."""


def nodes() -> list[Node]:
    """Those of the cluster that was joined."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own
    return [
        Node(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0), node["Labels"])
        for node in found
        if node["Alive"]
    ]


def fit(nodes: list[Node], actors: ActorsConfig) -> Fit:
    """Whoever else uses the cluster now is not looked at: work that waits for others ends."""
    chosen = [node for node in nodes if _is_chosen(node.labels, actors.label_selector)]
    held = sum(min(actors.min, _held(node, actors)) for node in chosen)
    if actors.num_gpus:  # a CPU somewhere is left for encoding
        spare = sum(node.cpus for node in nodes) - 1
        held = min(held, _times(spare, actors.num_cpus) if spare >= 0 else 0)
    if held >= actors.min:
        return Fit(actors.min, "")
    where = f" on nodes with labels {actors.label_selector}" if actors.label_selector else ""
    lack = (
        f"actors: {_count(actors.min, 'actor')} of {_count(actors.num_cpus, 'CPU')} and"
        f" {_count(actors.num_gpus, 'GPU')}{where}{', beside a CPU for encoding,' if actors.num_gpus else ''}"
        f" can't be held by the cluster: it has {described(nodes)}"
        f"{f', of these with the labels {described(chosen)}' if where else ''}."
        " Lower actors.min, num_cpus or num_gpus, or add nodes"
    )
    return Fit(int(held), lack)


def described(nodes: list[Node]) -> str:
    """As messages tell it: `2 CPUs and 0 GPUs on 1 node`."""
    largest = max((node.cpus for node in nodes), default=0)
    at_most = f", at most {_count(largest, 'CPU')} each" if len(nodes) > 1 else ""
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return f"{_count(cpus, 'CPU')} and {_count(gpus, 'GPU')} on {_count(len(nodes), 'node')}{at_most}"


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'s' * (number != 1)}"


def wait_for_one(actors: ActorsConfig) -> None:
    """Wait until the cluster could hold one actor: the job can start, and more join as nodes are added.

    Raises ConfigError when `actors.wait_s` are over.
    """
    found = fit(nodes(), actors)
    if found.lack:
        log.warning("waiting for the cluster to grow", why=found.lack, wait_s=actors.wait_s, fit=found.actors)
    if found.actors:
        return
    asked = _ask(actors)
    try:
        deadline = time.monotonic() + actors.wait_s
        while not found.actors:
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"{found.lack}. The cluster had {actors.wait_s:g} s to grow (actors.wait_s)"
                )
            time.sleep(min(_EVERY_S, max(0, deadline - time.monotonic())))
            found = fit(nodes(), actors)
    finally:
        for task in asked:
            ray.cancel(task, force=True)


def _ask(actors: ActorsConfig) -> "list[ray.ObjectRef[None]]":
    """Tasks of an actor's size, and of encoding's: an autoscaler adds nodes for work that waits."""
    task = ray.remote(max_retries=0)(_nothing)
    sized = task.options(
        num_cpus=actors.num_cpus, num_gpus=actors.num_gpus, label_selector=actors.label_selector
    )
    encoding = [task.options(num_cpus=1).remote()] if actors.num_gpus else []
    return [sized.remote(), *encoding]


def _nothing() -> None:
    pass


def _held(node: Node, actors: ActorsConfig) -> float:
    """How many actors this node holds: none is cut over two."""
    gpus = actors.num_gpus
    # Parts of a GPU share one; whole ones are taken as they come.
    on_gpus = node.gpus * _times(1, gpus) if 0 < gpus < 1 else _times(node.gpus, gpus)
    return min(_times(node.cpus, actors.num_cpus), on_gpus)


def _times(has: float, needs: float) -> float:
    """Ray counts in ten-thousandths: three times 0.3333 fit in 1."""
    return math.inf if not needs else (round(has * 10_000) // max(1, round(needs * 10_000)))


def _is_chosen(labels: dict[str, str], selector: dict[str, str]) -> bool:
    """As Ray reads a selector: a value, in(one, other), and either with a "!" before it."""
    return all(_holds(labels.get(key), wanted) for key, wanted in selector.items())


def _holds(label: str | None, wanted: str) -> bool:
    listed = wanted.removeprefix("!")
    values = listed[3:-1].split(",") if listed.startswith("in(") else [listed]
    return (label in values) != wanted.startswith("!")
