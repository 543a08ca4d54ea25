"""What fits a cluster, told from its nodes. reranking/test_placement.py waits for a real one to grow."""

from typing import Any

import pytest

from pipeline.capacity import Node, fit
from pipeline.placement import ActorsConfig

CPUS, GPUS = Node(4, 0, {}), Node(8, 2, {"gpu": "large"})
ONE, OTHER = Node(2, 0, {"pool": "one"}), Node(2, 0, {"pool": "other"})


@pytest.mark.parametrize(
    ("nodes", "actors", "held"),
    [
        ([CPUS, CPUS], {"min": 2, "num_cpus": 4}, 2),
        ([CPUS, CPUS], {"min": 1, "num_cpus": 8}, 0),  # no node has 8, though two together have
        ([CPUS, CPUS], {"min": 5, "num_cpus": 2}, 4),
        ([CPUS], {"min": 4, "num_cpus": 1}, 4),
        ([GPUS], {"min": 3, "num_gpus": 1}, 2),
        ([GPUS], {"min": 5, "num_gpus": 0.5}, 4),
        ([GPUS], {"min": 7, "num_gpus": 0.3333}, 6),
        ([Node(2, 2, {})], {"min": 2, "num_gpus": 1}, 1),  # the other CPU encodes
        ([Node(1, 1, {})], {"min": 1, "num_gpus": 1}, 0),
        ([Node(1, 1, {}), CPUS], {"min": 1, "num_gpus": 1}, 1),  # on another node
        ([Node(0, 1, {})], {"min": 1, "num_gpus": 1, "num_cpus": 0}, 0),
        ([CPUS, GPUS], {"min": 2, "num_gpus": 1, "label_selector": {"gpu": "!large"}}, 0),
        ([CPUS, GPUS], {"min": 2, "num_gpus": 1, "label_selector": {"gpu": "in(large,small)"}}, 2),
        ([], {"min": 1}, 0),
    ],
)
def test_how_many_actors_fit(nodes: list[Node], actors: dict[str, Any], held: int) -> None:
    found = fit(nodes, ActorsConfig.model_validate({"max": 64} | actors))
    assert found.actors == held
    assert bool(found.lack) == (held < actors["min"])


@pytest.mark.parametrize(
    ("nodes", "pools", "held"),
    [
        ([CPUS], [{"num_cpus": 2}, {"num_cpus": 2}], True),
        ([CPUS], [{"num_cpus": 3}, {"num_cpus": 2}], False),
        ([CPUS, CPUS], [{"num_cpus": 3}, {"num_cpus": 3}, {"num_cpus": 1, "min": 2}], True),
        ([Node(4, 1, {})], [{"num_gpus": 0.5}, {"num_gpus": 0.5}], True),  # two levels share a GPU
        ([Node(4, 1, {})], [{"num_gpus": 0.6}, {"num_gpus": 0.5}], False),
        ([Node(2, 1, {})], [{"num_gpus": 0.5}, {"num_gpus": 0.5}], False),  # no CPU is left to encode
        ([GPUS], [{"num_gpus": 1}, {"num_gpus": 0.5, "min": 2}], True),
        ([GPUS], [{"num_gpus": 2}, {"num_gpus": 0.5}], False),
        ([GPUS, CPUS], [{"num_gpus": 1, "num_cpus": 8}, {"num_cpus": 3}], True),
        ([CPUS, GPUS], [{"label_selector": {"gpu": "large"}, "num_cpus": 8}, {"num_cpus": 4}], True),
        ([CPUS, GPUS], [{"label_selector": {"gpu": "large"}, "num_cpus": 8}, {"num_cpus": 5}], False),
        # Who may go anywhere leaves the labelled node to who may not, in any order of the nodes.
        ([ONE, OTHER], [{"num_cpus": 2}, {"label_selector": {"pool": "one"}}], True),
        ([OTHER, ONE], [{"num_cpus": 2}, {"label_selector": {"pool": "one"}}], True),
        (
            [ONE, OTHER],
            [{"num_cpus": 2, "label_selector": {"pool": "one"}}, {"label_selector": {"pool": "one"}}],
            False,
        ),
        # The smaller actors go first here: two fill the node of four.
        ([CPUS, Node(3, 0, {})], [{"num_cpus": 3}, {"num_cpus": 2, "min": 2}], True),
        ([Node(3, 0, {}), CPUS], [{"num_cpus": 3}, {"num_cpus": 2, "min": 2}], True),
    ],
)
def test_whether_the_pools_of_several_levels_fit_together(
    nodes: list[Node], pools: list[dict[str, Any]], held: bool
) -> None:
    found = fit(nodes, *(ActorsConfig.model_validate({"max": 64} | actors) for actors in pools))
    assert bool(found.actors) == held
    assert bool(found.lack) == (not held)
    assert held or found.lack.startswith("actors: those of all levels together, ")


def test_actors_that_encode_themselves_leave_no_cpu() -> None:
    one = ActorsConfig(min=1, max=1, num_gpus=1)
    assert fit([Node(1, 1, {})], one, encodes=False) == (1, "")
    assert fit([Node(2, 2, {})], one, one, encodes=False) == (1, "")
    told = fit([Node(1, 1, {})], one, one, encodes=False).lack
    assert told.startswith("actors: those of all levels together, 1 actor of 1 CPU and 1 GPU + 1 actor of")
    assert "encoding" not in told + fit([CPUS], one, encodes=False).lack


def test_a_lack_says_what_the_cluster_has() -> None:
    actors = ActorsConfig(min=4, max=4, num_gpus=1, label_selector={"gpu": "small"})
    assert fit([CPUS, GPUS], actors).lack == (
        "actors: 4 actors of 1 CPU and 1 GPU on nodes with labels {'gpu': 'small'}, beside a CPU for"
        " encoding, can't be held by the cluster: it has 12 CPUs and 2 GPUs on 2 nodes, at most 8 CPUs each,"
        " of these with the labels 0 CPUs and 0 GPUs on 0 nodes. Lower actors.min, num_cpus or num_gpus, or"
        " add nodes"
    )
