"""configs/grafana/*.json are dashboards that Grafana takes, of metrics that there are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from docs.site.reference.metrics import noted
from pipeline.reporting import metrics
from serve import metrics as serve_metrics
from serve.config import level_name

METRICS = {
    "rerank": (
        "output",
        {
            *metrics.COUNTERS,
            *metrics.LEVEL_COUNTERS,
            *metrics.GAUGES,
            metrics.SHARD_SECONDS,
            metrics.REJECTED,
        },
    ),
    "retrieve": (
        "output",
        {*metrics.TASK_COUNTERS, metrics.TASKS_DONE, metrics.TASKS_REMAINING, metrics.REJECTED},
    ),
    "serve": ("model", {*serve_metrics.COUNTERS, *serve_metrics.HISTOGRAMS}),
}
"""Of each dashboard: the label by which it chooses, and what it is to show."""
SUFFIX = re.compile("_(bucket|sum|count)$")


@pytest.fixture(params=METRICS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dashboard(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(Path(f"configs/grafana/{name}.json").read_text())
    return read


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_each_dashboard_is_tried() -> None:
    assert {path.stem for path in Path("configs/grafana").glob("*.json")} == METRICS.keys()


def test_it_shows_every_metric_and_no_other(name: str, dashboard: dict[str, Any]) -> None:
    label, known = METRICS[name]
    named = {found for text in expressions(dashboard) for found in re.findall(r"ray_(rayrank_\w+)", text)}
    assert {found if found in known else SUFFIX.sub("", found) for found in named} == known
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    query = re.fullmatch(rf"label_values\(ray_(\w+), {label}\)", variables[label]["query"]["query"])
    assert query
    assert query[1] in known


def test_each_expression_is_of_what_was_chosen_and_balanced(name: str, dashboard: dict[str, Any]) -> None:
    label, _ = METRICS[name]
    for text in expressions(dashboard):
        assert len(re.findall(r"ray_rayrank_\w+", text)) == text.count(f'{{{label}=~"${label}')
        assert text.count("(") == text.count(")")
        assert not re.search(r"rate\(ray_rayrank_\w*(?<!_total)(?<!_bucket)\{", text), (
            "a rate is of a counter"
        )


def test_the_devices_of_a_cascades_levels_are_shown_with_it() -> None:
    """What replicas tell is of a level, what the API tells of the cascade."""
    dashboard = json.loads(Path("configs/grafana/serve.json").read_text())
    with noted(serve_metrics) as made:
        serve_metrics.ReplicaMetrics("model")
    of_replicas = {each.name for each in made}
    assert of_replicas
    for metric, pattern in re.findall(
        r'ray_(rayrank_\w+)\{model=~"([^"]+)"', " ".join(expressions(dashboard))
    ):
        shown = re.compile(pattern.replace("$model", "(both|other)"))
        assert shown.fullmatch("both")
        is_of_replica = SUFFIX.sub("", metric) in of_replicas
        assert bool(shown.fullmatch(level_name("both", 1))) is is_of_replica
        assert not shown.fullmatch("both-2")


def test_it_has_what_grafana_needs(dashboard: dict[str, Any]) -> None:
    assert dashboard["schemaVersion"] >= 36
    assert dashboard["uid"]
    assert dashboard["title"]
    assert "id" not in dashboard, "an id is of one Grafana; the uid is the dashboard's own"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            assert (
                target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            )
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_two_panels_overlap(dashboard: dict[str, Any]) -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in dashboard["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
