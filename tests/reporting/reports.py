"""Reports of shards that were never scored, for what reads reports."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from pipeline.reporting.summary import Summary, totalled
from pipeline.reporting.totals import Totals
from pipeline.tables.output.attempts import Quarantined
from pipeline.tables.output.format_version import FORMAT_VERSION
from pipeline.tables.output.markers import Counts, ShardReport
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.output.statistics import Distribution, RankChanges

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
SCORES = np.linspace(-4, 5.5, 20)


def report(index: int = 0, **changes: Any) -> ShardReport:
    """20 pairs of 2 queries, 2,000 tokens, scored in 4 seconds. changes: of its fields or counts."""
    counts = {
        "queries": 2, "pairs": 20, "kept": 20, "tokens": 2000, "padded_tokens": 2500, "encode_s": 0.5,
        "score_s": 4.0,
    }  # fmt: skip
    counts |= {name: changes.pop(name) for name in set(changes) & Counts.model_fields.keys()}
    fields = {
        "format_version": FORMAT_VERSION, "job": "job", "name": f"shard-{index:06d}", "fingerprint": "f",
        "counts": counts,
        "finished": START + timedelta(seconds=10 * index), "scores": Distribution.of(SCORES),
        "best_scores": Distribution.of(SCORES[::10]), "query_hashes": bytes(16),
        "files": {f"{folder}/shard-{index:06d}.parquet": Stamp.of(b"") for folder in ("run", "scores")},
        "rank_changes": RankChanges.of(np.arange(20) % 10 + 1, np.arange(20)[::-1] % 10 + 1),
    }  # fmt: skip
    return ShardReport.model_validate(fields | changes)


def quarantined(index: int = 9, pairs: int = 20) -> Quarantined:
    places = (f"s3://bucket/in/part-{index}.parquet from row 1",)
    return Quarantined(name=f"shard-{index:06d}", stage="score", pairs=pairs, places=places)


def summary(**changes: Any) -> Summary:
    """Of one such shard."""
    totals = Totals()
    totals.add(report())
    fields = {
        "output": "out/run", "model": "<m>", "model_fingerprint": "sha256:1", "config_fingerprint": "c",
        "shards": 1, "shards_done_before": 0, "top_k": 10, "files_skipped": 0, "wall_s": 60.0,
        "pairs_per_s": 5.0, "versions": {"ray": "2.60.0"}, "quarantined": [],
        "actor_pairs_per_s": 12.5,
    }  # fmt: skip
    return Summary.model_validate(totalled(totals) | fields | changes)
