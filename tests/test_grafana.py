"""configs/grafana/rerank.json is a dashboard that Grafana takes, of metrics that there are."""

import json
import re
from pathlib import Path
from typing import Any

from pipeline.metrics import COUNTERS, GAUGES, SHARD_SECONDS

DASHBOARD: dict[str, Any] = json.loads(Path("configs/grafana/rerank.json").read_text())
SUFFIX = re.compile("_(bucket|sum|count)$")


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def test_it_shows_every_metric_and_no_other() -> None:
    named = {name for text in expressions() for name in re.findall(r"ray_(rayrank_\w+)", text)}
    known = {SHARD_SECONDS, *COUNTERS, *GAUGES}
    assert {name if name in known else SUFFIX.sub("", name) for name in named} == known
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert variables["output"]["query"]["query"] == "label_values(ray_rayrank_shards_planned, output)"


def test_each_expression_is_of_the_chosen_jobs_and_balanced() -> None:
    for text in expressions():
        assert len(re.findall(r"ray_rayrank_\w+", text)) == text.count('{output=~"$output"}')
        assert text.count("(") == text.count(")")
        assert not re.search(r"rate\(ray_rayrank_\w*(?<!_total)(?<!_bucket)\{", text), (
            "a rate is of a counter"
        )


def test_it_has_what_grafana_needs() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    assert "id" not in DASHBOARD, "an id is of one Grafana; the uid is the dashboard's own"
    panels = DASHBOARD["panels"]
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


def test_no_two_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in DASHBOARD["panels"]):
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
