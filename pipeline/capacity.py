"""How many of a job's actors a cluster can hold."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any, NamedTuple

import ray

from pipeline import log
from pipeline.errors import TemporaryError
from pipeline.placement import ActorsConfig

_EVERY_S = 1.0
_BESIDE = ", beside a CPU for encoding,"
_ORDERS = 120
"""Of pools, that are tried: all of five. With 2,000 nodes they take 1.5 s."""
_UNIT = 10_000
"""Ray counts in ten-thousandths: three times 0.3333 fit in 1."""


class Node(NamedTuple):
    """A machine of the cluster that is alive."""

    cpus: float
    gpus: float
    labels: dict[str, str]
    memory: float = 0
    """Bytes that Ray gives to tasks."""


class Fit(NamedTuple):
    """What of a job's actors the cluster can hold."""

    actors: int
    """How many of each pool, up to `actors.min`, with what is left for encoding."""
    lack: str
    """Why fewer than `actors.min` fit, in a sentence; empty where they all do."""


def nodes() -> list[Node]:
    """Those of the cluster that was joined."""
    of_cluster: Callable[[], list[dict[str, Any]]] = ray.nodes  # Ray 2.60 gives it no types
    alive = [(node["Resources"], node["Labels"]) for node in of_cluster() if node["Alive"]]
    return [Node(has.get("CPU", 0), has.get("GPU", 0), labels, has.get("memory", 0)) for has, labels in alive]


def fit(nodes: list[Node], *pools: ActorsConfig, encodes: bool = True) -> Fit:
    """What of the pools fits beside each other.

    encodes: whether actors that hold GPUs need a CPU beside them, of any node, where tasks encode for them.
    Whoever else uses the cluster now is not looked at: work that waits for others ends.
    """
    alone = [_fit(nodes, actors, encodes=encodes) for actors in pools]
    if len(pools) == 1:
        return alone[0]
    lacks = [found.lack for found in alone if found.lack]
    if not lacks and not _hold(nodes, [(actors, actors.min) for actors in pools], encodes=encodes):
        lacks = [_lack_together(nodes, pools, encodes=encodes)]
    one_of_each = _hold(nodes, [(actors, 1) for actors in pools], encodes=encodes)
    return Fit(min(found.actors for found in alone) if one_of_each else 0, lacks[0] if lacks else "")


def _fit(nodes: list[Node], actors: ActorsConfig, *, encodes: bool) -> Fit:
    chosen = [node for node in nodes if _is_chosen(node.labels, actors.label_selector)]
    held = sum(min(actors.min, _held(node, actors)) for node in chosen)
    needs_a_cpu = encodes and actors.num_gpus > 0
    if needs_a_cpu:
        spare = sum(node.cpus for node in nodes) - 1
        held = min(held, _times(spare, actors.num_cpus) if spare >= 0 else 0)
    if held >= actors.min:
        return Fit(actors.min, "")
    where = f" on nodes with labels {actors.label_selector}" if actors.label_selector else ""
    lack = (
        f"actors: {_count(actors.min, 'actor')} of {_count(actors.num_cpus, 'CPU')} and"
        f" {_count(actors.num_gpus, 'GPU')}{where}{_BESIDE if needs_a_cpu else ''}"
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


def wait_for_one(*pools: ActorsConfig, encodes: bool = True) -> None:
    """Wait until the cluster could hold an actor of each pool: the job can start, and more join as nodes are
    added.

    encodes: as in `fit`. Raises TemporaryError when the longest `wait_s` of them is over.
    """
    found = fit(nodes(), *pools, encodes=encodes)
    if found.actors:
        if found.lack:
            log.warning(
                "fewer actors than actors.min until the cluster grows", fit=found.actors, why=found.lack
            )
        return
    _wait(
        lambda: "" if (now := fit(nodes(), *pools, encodes=encodes)).actors else now.lack,
        wait_s=max(actors.wait_s for actors in pools),
        asked=[task for actors in pools for task in _ask(actors, encodes=encodes)],
        option="actors.wait_s",
    )


def wait_for_a_cpu(wait_s: float) -> None:
    """Wait until the cluster has a whole one, for work that holds no actors.

    Raises TemporaryError when `wait_s` is over.
    """
    if not any(node.cpus >= 1 for node in nodes()):
        _wait(
            lambda: (
                ""
                if any(node.cpus >= 1 for node in nodes())
                else f"a task takes a CPU, and the cluster has {described(nodes())}; add nodes"
            ),
            wait_s=wait_s,
            asked=[ray.remote(max_retries=0)(_nothing).options(num_cpus=1).remote()],
        )


def _wait(
    lack: Callable[[], str], wait_s: float, asked: "list[ray.ObjectRef[None]]", option: str = ""
) -> None:
    """Until nothing lacks. asked: tasks for which an autoscaler adds nodes. option: what sets `wait_s`."""
    missing = lack()
    log.warning("waiting for the cluster to grow", wait_s=wait_s, why=missing)
    try:
        deadline = time.monotonic() + wait_s
        while missing:
            if time.monotonic() >= deadline:
                raise TemporaryError(
                    f"{missing}. The cluster had {wait_s:g} s to grow{option and f' ({option})'}"
                )
            time.sleep(min(_EVERY_S, max(0, deadline - time.monotonic())))
            missing = lack()
    finally:
        for task in asked:
            ray.cancel(task, force=True)


def _ask(actors: ActorsConfig, *, encodes: bool) -> "list[ray.ObjectRef[None]]":
    """Tasks of an actor's size, and of encoding's: an autoscaler adds nodes for work that waits."""
    task = ray.remote(max_retries=0)(_nothing)
    sized = task.options(
        num_cpus=actors.num_cpus, num_gpus=actors.num_gpus, label_selector=actors.label_selector
    )
    encoding = [task.options(num_cpus=1).remote()] if encodes and actors.num_gpus else []
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
    return math.inf if not needs else (round(has * _UNIT) // max(1, round(needs * _UNIT)))


@dataclass
class _Room:
    """What of a node is left, in Ray's units."""

    cpus: int
    gpus: list[int]
    """Of each."""
    labels: dict[str, str]

    def take(self, actors: ActorsConfig, wanted: int) -> int:
        """Hold up to `wanted` actors, and say how many."""
        cpus, gpus = round(actors.num_cpus * _UNIT), round(actors.num_gpus * _UNIT)
        most = min(wanted, self.cpus // cpus) if cpus else wanted
        held = self._take_gpus(gpus, most) if gpus else most
        self.cpus -= held * cpus
        return held

    def _take_gpus(self, gpus: int, most: int) -> int:
        if gpus >= _UNIT:  # whole ones
            each = gpus // _UNIT
            held = min(most, self.gpus.count(_UNIT) // each)
            for _ in range(held * each):
                self.gpus[self.gpus.index(_UNIT)] = 0
            return held
        held = 0
        for at, left in enumerate(self.gpus):
            here = min(most - held, left // gpus)
            self.gpus[at] -= here * gpus
            held += here
        return held


def _hold(nodes: list[Node], wanted: Sequence[tuple[ActorsConfig, int]], *, encodes: bool) -> bool:
    """Whether so many actors of several pools fit at once, placed in the one order or another."""
    largest_first = sorted(wanted, key=lambda one: (-one[0].num_gpus, -one[0].num_cpus))
    orders = islice(permutations(largest_first), _ORDERS)
    return any(_hold_in_turn(nodes, order, encodes=encodes) for order in orders)


def _hold_in_turn(nodes: list[Node], wanted: Sequence[tuple[ActorsConfig, int]], *, encodes: bool) -> bool:
    def sought(node: Node) -> int:
        return sum(_is_chosen(node.labels, actors.label_selector) for actors, _ in wanted)

    # Each pool takes first what fewer others can use: nodes that they don't choose, or without GPUs.
    nodes = sorted(nodes, key=lambda node: (sought(node), node.gpus))
    rooms = [_Room(round(node.cpus * _UNIT), [_UNIT] * int(node.gpus), node.labels) for node in nodes]
    for actors, count in wanted:
        left = count
        for room in rooms:
            if left and _is_chosen(room.labels, actors.label_selector):
                left -= room.take(actors, left)
        if left:
            return False
    needs_a_cpu = encodes and any(actors.num_gpus for actors, _ in wanted)
    return not needs_a_cpu or sum(room.cpus for room in rooms) >= _UNIT


def _lack_together(nodes: list[Node], pools: Sequence[ActorsConfig], *, encodes: bool) -> str:
    each = [
        f"{_count(actors.min, 'actor')} of {_count(actors.num_cpus, 'CPU')} and"
        f" {_count(actors.num_gpus, 'GPU')}"
        for actors in pools
    ]
    encoding = _BESIDE if encodes and any(actors.num_gpus for actors in pools) else ""
    return (
        f"actors: those of all levels together, {' + '.join(each)}{encoding} can't be held by the cluster: it"
        f" has {described(nodes)}. Lower min, num_cpus or num_gpus of the levels' actors, or add nodes"
    )


def _is_chosen(labels: dict[str, str], selector: dict[str, str]) -> bool:
    """As Ray reads a selector: a value, in(one, other), and either with a "!" before it."""
    return all(_holds(labels.get(key), wanted) for key, wanted in selector.items())


def _holds(label: str | None, wanted: str) -> bool:
    listed = wanted.removeprefix("!")
    values = listed[3:-1].split(",") if listed.startswith("in(") else [listed]
    return (label in values) != wanted.startswith("!")
