"""The CronJob of configs/kuberay, run as a script, and the alerts on what it starts."""

import os
import re
import subprocess
from pathlib import Path

import yaml

from pipeline.reporting import metrics
from serve import metrics as serve_metrics
from tests.test_kuberay import MANIFESTS, documents, rayjob


def test_alerts_are_on_metrics_that_there_are() -> None:
    [rule] = documents("alerts.yaml")
    rules = [each for group in rule["spec"]["groups"] for each in group["rules"]]
    alerts = [each for each in rules if "alert" in each]
    assert {alert["labels"]["severity"] for alert in alerts} == {"critical", "warning"}
    assert len(alerts) == 9
    texts = [each["expr"] for each in rules]
    recorded = {name for text in texts for name in re.findall(r"\brerank:[\w:]+", text)}
    assert recorded == {each["record"] for each in rules if "record" in each}
    named = {name for text in texts for name in re.findall(r"ray_(rayrank_\w+)", text)}
    assert {metrics.REJECTED, "rayrank_shards_quarantined", "rayrank_requests_total"} < named
    of_jobs = {metrics.REJECTED, metrics.TASKS_REMAINING, *metrics.COUNTERS, *metrics.GAUGES}
    assert named <= of_jobs | {*serve_metrics.COUNTERS}
    for text in texts:
        assert text.count("(") == text.count(")")
    [nightly] = [each for each in documents("rerank-nightly.yaml") if each["kind"] == "CronJob"]
    crons = {name for text in texts for name in re.findall(r'cronjob="([^"]+)"', text)}
    assert crons == {nightly["metadata"]["name"]}


def test_a_late_night_is_told_by_the_date_in_its_jobs_name() -> None:
    """Not by the time at which any job ended: nights and backfills overlap."""
    [rule] = documents("alerts.yaml")
    [group] = rule["spec"]["groups"]
    [late] = [each["expr"] for each in group["rules"] if each.get("alert") == "RerankNightLate"]
    [(replacement, pattern)] = re.findall(r'"date", "([^"]+)", "job_name", "([^"]+)"', late)
    match = re.fullmatch(pattern, rayjob()["metadata"]["name"])  # Prometheus anchors it at both ends
    assert match is not None
    assert match.expand(re.sub(r"\$(\d)", r"\\\1", replacement)) == "20261120"
    assert 'count_values("date", year(' in late  # the same number, from the scheduled time
    assert re.findall(r"(\w+)\(rerank:last_night:time\)", late) == ["year", "month", "day_of_month"]


def nightly_script(
    path: Path, annotation: str, rayjobs: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The CronJob's script, with a kubectl that tells the annotation and the RayJobs, and keeps what is
    applied and deleted.
    """
    (path / "rayjobs").write_text("".join(f"{line}\n" for line in rayjobs))
    (path / "kubectl").write_text(
        f"""#!/bin/sh
case "$1 $2" in
    "get job") echo "{annotation}";;
    "get rayjobs") cat {path}/rayjobs;;
    "apply -f") cat > {path}/applied;;
    *) echo "$@" > {path}/deleted;;
esac
"""
    )
    (path / "kubectl").chmod(0o755)
    [cronjob, *_] = documents("rerank-nightly.yaml")
    [container] = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    script = container["args"][0].replace("/manifests", str(MANIFESTS))
    environment = {"PATH": f"{path}:{os.environ['PATH']}", "JOB": "rerank-nightly-29391300"}
    return subprocess.run(
        [*container["command"], script], env=environment, capture_output=True, text=True, check=False
    )


def test_the_nightly_job_applies_the_date_that_was_scheduled(tmp_path: Path) -> None:
    done = nightly_script(tmp_path, "2026-11-20T03:00:00Z")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "applied").read_text()) == rayjob()


def test_the_rayjobs_that_ended_long_ago_are_deleted(tmp_path: Path) -> None:
    ended = [f"2026-11-{day:02}T05:00:00Z   rerank-2026-11-{day:02}" for day in range(1, 18)]
    late = "2026-11-18T02:00:00Z   rerank-2026-01-01"  # an old date, done lately
    running = "<none>                 rerank-2025-12-31"
    done = nightly_script(tmp_path, "2026-11-20T03:00:00Z", (running, *ended, late))
    assert done.returncode == 0, done.stderr
    deleted = (tmp_path / "deleted").read_text().split()
    assert deleted == [
        *("delete", "rayjobs", "--wait=false"),
        *(f"rerank-2026-11-{day:02}" for day in (4, 3, 2, 1)),
    ]
    (tmp_path / "deleted").unlink()
    done = nightly_script(tmp_path, "2026-11-20T03:00:00Z", (running, *ended[:14]))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "deleted").exists()


def test_a_job_that_no_schedule_made_is_refused(tmp_path: Path) -> None:
    done = nightly_script(tmp_path, "")
    [cronjob, *_] = documents("rerank-nightly.yaml")
    [rule] = cronjob["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [done.returncode])
    assert done.returncode == 2
    assert "no schedule behind this job" in done.stderr
    assert not (tmp_path / "applied").exists()
