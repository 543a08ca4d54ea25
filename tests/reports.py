"""Reports of shards that were never scored, for what reads reports."""

from typing import Any

from pipeline.tables.attempts import Quarantined
from pipeline.tables.manifest import ShardReport


def report(index: int = 0, **changes: Any) -> ShardReport:
    """20 pairs of 2 queries, 2,000 tokens, scored in 4 seconds."""
    fields = {
        "name": f"shard-{index:06d}", "fingerprint": "f", "queries": 2, "pairs": 20, "kept": 20,
        "rejected": {}, "truncated": 0, "tokens": 2000, "padded_tokens": 2500, "encode_s": 0.5,
        "score_s": 4.0,
    }  # fmt: skip
    return ShardReport.model_validate(fields | changes)


def quarantined(index: int = 9, pairs: int = 20) -> Quarantined:
    places = (f"s3://bucket/in/part-{index}.parquet from row 1",)
    return Quarantined(name=f"shard-{index:06d}", stage="score", pairs=pairs, places=places)
