"""Metrics as a Prometheus server sees them: scraped by HTTP from a real Ray's exporter."""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from pipeline.reporting.metrics import Metrics, TaskMetrics
from tests.own_ray import own_ray
from tests.ports import free_port
from tests.reporting.reports import quarantined, report

pytestmark = pytest.mark.ray

Samples = dict[str, float]
ONE = {"shard-000000": 20}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    port = free_port()
    system = {"metrics_report_interval_ms": 1000}
    with own_ray(num_cpus=1, _metrics_export_port=port, _system_config=system):
        yield f"http://127.0.0.1:{port}/metrics"


def scrape(endpoint: str) -> Samples:
    """Our samples, each by its name and the labels that are ours."""
    samples = {}
    with urlopen(endpoint, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if found := re.match(r"(ray_rayrank_\w+)\{(.*)\} (\S+)$", line):
                name, labels, value = found.groups()
                ours = re.findall(r'\b(?:output|reason|level|step|le)="[^"]*"', labels)
                samples[f"{name}{{{','.join(sorted(ours))}}}"] = float(value)
    return samples


def wait_for(endpoint: str, expected: Samples) -> Samples:
    deadline, seen = time.monotonic() + 60, Samples()
    while time.monotonic() < deadline:
        with suppress(URLError):  # the exporter begins a little after Ray
            seen = scrape(endpoint)
        if expected.items() <= seen.items():
            return seen
        time.sleep(0.2)
    raise AssertionError(f"not there: {expected.items() - seen.items()}, but {seen}")


def test_prometheus_sees_how_far_a_job_is(endpoint: str) -> None:
    planned = {f"shard-{number:06d}": pairs for number, pairs in enumerate((20, 24, 26, 20), start=1)}
    metrics = Metrics("s3://bucket/run", planned, done=1, actors=2)
    metrics.add(report(1, score_s=4.5))
    metrics.add(report(2, score_s=50.0, rejected={"null_query": 300, "malformed_row": 1}))
    metrics.add(report(3, pairs=0, tokens=0, score_s=0.0))
    metrics.add(quarantined(4, pairs=20))
    output = 'output="s3://bucket/run"'
    seen = wait_for(
        endpoint,
        {
            f"ray_rayrank_pairs_total{{{output}}}": 40,
            f"ray_rayrank_tokens_total{{{output}}}": 4000,
            f"ray_rayrank_scoring_seconds_total{{{output}}}": 54.5,
            f'ray_rayrank_rejected_rows_total{{{output},reason="null_query"}}': 300,
            f'ray_rayrank_rejected_rows_total{{{output},reason="malformed_row"}}': 1,
            f"ray_rayrank_shards_planned{{{output}}}": 5,
            f"ray_rayrank_shards_done{{{output}}}": 4,
            f"ray_rayrank_shards_quarantined{{{output}}}": 1,
            f"ray_rayrank_pairs_remaining{{{output}}}": 0,
            f"ray_rayrank_actors{{{output}}}": 2,
            f'ray_rayrank_shard_scoring_seconds_bucket{{le="5.0",{output}}}': 2,
            f'ray_rayrank_shard_scoring_seconds_bucket{{le="60.0",{output}}}': 3,
            f"ray_rayrank_shard_scoring_seconds_count{{{output}}}": 3,
        },
    )
    assert len({name for name in seen if "le=" not in name}) == 12


def test_levels_of_a_cascade_are_told_apart(endpoint: str) -> None:
    levels = [{"pairs": 20, "reused": 5, "tokens": 900, "score_s": 1.5}, {"pairs": 6, "score_s": 2.5}]
    Metrics("cascade", ONE, done=0, actors=2).add(report(levels=levels))
    wait_for(
        endpoint,
        {
            'ray_rayrank_level_pairs_total{level="0",output="cascade"}': 15,
            'ray_rayrank_level_pairs_total{level="1",output="cascade"}': 6,
            'ray_rayrank_level_tokens_total{level="0",output="cascade"}': 900,
            'ray_rayrank_level_scoring_seconds_total{level="1",output="cascade"}': 2.5,
        },
    )


def test_the_steps_of_a_first_stage_are_told_apart(endpoint: str) -> None:
    read = TaskMetrics("first", "read", tasks=2)
    read.add({"shards": {"000000-000000": 5}, "empty": 0, "rejected": {"null_passage": 2}})
    read.add({"shards": {}, "empty": 0, "rejected": {"null_passage": 1, "invalid_text": 4}})
    embed = TaskMetrics("first", "embed", tasks=3)
    embed.add({"embedded": 5, "cut": 1, "reused": 0, "tokens": 70})
    TaskMetrics("first", "search", tasks=4).add({})
    # Another source's turn. Counters go on, the gauge begins again.
    TaskMetrics("first", "embed", tasks=6).add({"embedded": 2, "cut": 0, "reused": 3, "tokens": 30})
    wait_for(
        endpoint,
        {
            'ray_rayrank_tasks_remaining{output="first",step="read"}': 0,
            'ray_rayrank_tasks_remaining{output="first",step="embed"}': 5,
            'ray_rayrank_tasks_remaining{output="first",step="search"}': 3,
            'ray_rayrank_tasks_total{output="first",step="read"}': 2,
            'ray_rayrank_tasks_total{output="first",step="embed"}': 2,
            'ray_rayrank_rejected_rows_total{output="first",reason="null_passage"}': 3,
            'ray_rayrank_rejected_rows_total{output="first",reason="invalid_text"}': 4,
            'ray_rayrank_embedded_texts_total{output="first"}': 7,
            'ray_rayrank_reused_texts_total{output="first"}': 3,
            'ray_rayrank_tokens_total{output="first"}': 100,
        },
    )


def test_an_output_of_any_name_is_a_label(endpoint: str) -> None:
    Metrics("/输出/a b#\n", ONE, done=0, actors=1).add(report(pairs=5))
    Metrics(f"/{'x' * 250}/{'y' * 250}", ONE, done=0, actors=1).add(report(pairs=6))
    names = ("/%E8%BE%93%E5%87%BA/a b#%0A", f"/{'x' * 250}/{'y' * 250}")
    expected = {f'ray_rayrank_pairs_total{{output="{name}"}}': 5.0 + at for at, name in enumerate(names)}
    wait_for(endpoint, expected)


def test_jobs_of_one_cluster_are_told_apart(endpoint: str) -> None:
    for output, pairs in (("out/a", 7), ("out/b", 9)):
        Metrics(output, ONE, done=0, actors=1).add(report(pairs=pairs))
    expected = {'ray_rayrank_pairs_total{output="out/a"}': 7, 'ray_rayrank_pairs_total{output="out/b"}': 9}
    wait_for(endpoint, {name: float(value) for name, value in expected.items()})
