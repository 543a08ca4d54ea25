"""What the alerts of configs/kuberay make of a job's metrics, as Prometheus itself computes them.

promtool comes with Prometheus. Where it is not installed, the texts alone are checked.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_kuberay import documents

GROUPS = documents("alerts.yaml")[0]["spec"]["groups"]
EXPRESSIONS = {
    rule.get("alert", rule.get("record")): rule["expr"] for group in GROUPS for rule in group["rules"]
}
LEFT, TASKS = "ray_rayrank_pairs_remaining", "ray_rayrank_tasks_remaining"
SCORED, REUSED = "ray_rayrank_pairs_total", "ray_rayrank_reused_pairs_total"
PLANNED = "ray_rayrank_shards_planned"


def test_what_stands_still_is_known_for_as_long() -> None:
    """The delta of a series that is younger than its range is 0, too."""
    text = EXPRESSIONS["RerankStandsStill"]
    for metric in (LEFT, TASKS):
        assert f"delta({metric}[30m]) and {metric} offset 30m" in text


def test_each_counter_of_the_share_may_be_missing() -> None:
    """Ray has none of what was never counted."""
    text = " ".join(EXPRESSIONS["rerank:scored:share"].split())
    for counter, other in ((SCORED, REUSED), (REUSED, SCORED)):
        guarded = f"(sum by (output) ({counter}) or 0 * sum by (output) ({other}))"
        assert text.count(f"sum by (output) ({counter})") == text.count(guarded) + text.count(
            f"or 0 * sum by (output) ({counter})"
        )
        assert guarded in text


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    told = ", ".join(f'{label}="{value}"' for label, value in ({"output": "out"} | labels).items())
    return {"series": f"{name}{{{told}}}", "values": values}


def prometheus(tmp_path: Path, metrics: list[dict[str, str]], **tests: Any) -> None:
    if (promtool := shutil.which("promtool")) is None:
        pytest.skip("needs promtool, of Prometheus")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": GROUPS}))
    case = {"interval": "1m", "input_series": metrics} | tests
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole))
    command = [promtool, "test", "rules", str(tmp_path / "tests.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def standing(minute: int, *labels: dict[str, str]) -> dict[str, Any]:
    told = {"summary": "out: nothing was done in the last 45 minutes"}
    alerts = [
        {"exp_labels": {"severity": "warning", "output": "out"} | more, "exp_annotations": told}
        for more in labels
    ]
    return {"eval_time": f"{minute}m", "alertname": "RerankStandsStill", "exp_alerts": alerts}


def test_a_job_stands_still_after_45_minutes(tmp_path: Path) -> None:
    """Counted from its start, and from its last shard."""
    never_begun = [series(LEFT, "100x100")]
    prometheus(tmp_path, never_begun, alert_rule_test=[standing(44), standing(46, {})])
    one_shard = [series(LEFT, "100x60 90x60")]
    prometheus(tmp_path, one_shard, alert_rule_test=[standing(59, {}), standing(104), standing(108, {})])
    ends = [series(LEFT, "100x20 0x60")]
    prometheus(tmp_path, ends, alert_rule_test=[standing(minute) for minute in (30, 60, 79)])


def test_a_new_try_and_a_new_step_have_their_45_minutes(tmp_path: Path) -> None:
    tries = [
        series(LEFT, "100x20 stale", WorkerId="first"),
        series(LEFT, "_x24 100x60", WorkerId="second"),
    ]
    prometheus(tmp_path, tries, alert_rule_test=[standing(67), standing(72, {})])
    steps = [series(TASKS, "50-1x49 0x80", step="embed"), series(TASKS, "_x50 10x100", step="search")]
    prometheus(tmp_path, steps, alert_rule_test=[standing(93), standing(98, {"step": "search"})])


def share(minute: int, value: float) -> dict[str, Any]:
    sample = {"labels": 'rerank:scored:share{output="out"}', "value": value}
    return {"expr": "rerank:scored:share", "eval_time": f"{minute}m", "exp_samples": [sample]}


@pytest.mark.parametrize(
    ("counted", "value"),
    [
        ({SCORED: "30"}, 1.0),
        ({REUSED: "30"}, 0.0),  # nothing but known pairs: Ray has no counter of the others
        ({SCORED: "10", REUSED: "30"}, 0.25),
    ],
)
def test_the_share_of_scored_pairs(tmp_path: Path, counted: dict[str, str], value: float) -> None:
    metrics = [series(name, f"{number}x10") for name, number in ({PLANNED: "4"} | counted).items()]
    prometheus(tmp_path, metrics, promql_expr_test=[share(5, value)])


def test_after_nights_that_reused_all_one_that_scores_all_is_told(tmp_path: Path) -> None:
    metrics = [
        series(PLANNED, "4x30 _x1400 4x30", SessionName="of both"),
        series(REUSED, "100x30 stale"),
        series(SCORED, "_x1431 100x30"),
    ]
    alert = {
        "exp_labels": {"severity": "warning", "output": "out"},
        "exp_annotations": {"summary": "out: most pairs are scored, though the last nights reused theirs"},
    }
    told = {"eval_time": "1446m", "alertname": "RerankLittleReused", "exp_alerts": [alert]}
    prometheus(tmp_path, metrics, alert_rule_test=[told])


def test_the_replicas_of_a_cascades_levels_are_counted_by_the_documented_query(tmp_path: Path) -> None:
    """docs/operating.md: pairs/s of requests that a replica of each level keeps up with."""
    text = Path("docs/operating.md").read_text().replace("\n", " ")
    [query] = re.findall(r"`(scalar\([^`]+)`", text)
    metrics = [
        {"series": 'ray_rayrank_served_pairs_total{model="both"}', "values": "0+6000x10"},
        {"series": 'ray_rayrank_device_seconds_total{model="both/levels.0"}', "values": "0+30x10"},
        {"series": 'ray_rayrank_device_seconds_total{model="both/levels.1"}', "values": "0+60x10"},
    ]
    samples = [
        {"labels": '{model="both/levels.0"}', "value": 200},
        {"labels": '{model="both/levels.1"}', "value": 100},
    ]
    wanted = {"expr": query, "eval_time": "10m", "exp_samples": samples}
    prometheus(tmp_path, metrics, promql_expr_test=[wanted])
