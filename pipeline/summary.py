"""What a finished job tells: one JSON file for programs, the same as text for people."""

import platform
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.tables.attempts import MAX_ATTEMPTS, Quarantined
from pipeline.tables.manifest import ShardReport
from pipeline.tables.schema import REASONS

_PACKAGES = ("rayrank", "ray", "torch", "transformers", "tokenizers", "pyarrow")


class Summary(BaseModel):
    """Counts are of the whole run, however many starts it took; `wall_s` is of the last one."""

    model_config = ConfigDict(frozen=True)

    output: str
    model: str
    model_fingerprint: str
    config_fingerprint: str
    shards: int
    shards_done_before: int
    queries: int
    pairs: int
    kept: int
    top_k: int | None
    files_left_out: int
    rejected: dict[str, int]
    quarantined: list[Quarantined]
    """Shards given up, since they killed the processes that worked on them; the run lacks their pairs."""
    truncated: int
    tokens: int
    padding_share: float
    wall_s: float
    pairs_per_s: float
    """Of this start: its pairs over its wall time, starting Ray and loading the model included."""
    versions: dict[str, str]

    def as_text(self) -> str:
        rejected = sum(self.rejected.values())
        lines = [
            f"{self.pairs} pairs of {self.queries} queries scored by {self.model} in {self.wall_s:.1f} s"
            f" ({self.pairs_per_s:.1f} pairs/s with start-up, {self.padding_share:.1%} padding)",
            f"{self.kept} rows in {self.output}/run"
            + (f", the top {self.top_k} a query" if self.top_k else "")
            + (
                f"; {self.shards_done_before} of {self.shards} shards were done before"
                if self.shards_done_before
                else ""
            ),
        ]
        if self.files_left_out:
            lines.append(f"{self.files_left_out} files of the input were left out; --dry-run lists them")
        if self.truncated:
            lines.append(f"{self.truncated} pairs were cut to the model's length")
        if rejected:
            lines.append(f"{rejected} rows rejected, see {self.output}/rejects:")
            lines += [f"  {count} {reason}: {REASONS[reason]}" for reason, count in self.rejected.items()]
        if self.quarantined:
            lines.append(
                f"{len(self.quarantined)} shards were given up after {MAX_ATTEMPTS} processes died of each;"
                " the run lacks them, and there is no _SUCCESS. The same command tries them again:"
            )
            for shard in self.quarantined:
                lines.append(f"  {shard.name}, in {shard.stage}: {', '.join(shard.places)}")
        return "\n".join(lines)


def count(reports: Iterable[ShardReport]) -> dict[str, Any]:
    """The fields of a Summary that are sums over shards."""
    reports = list(reports)
    rejected: Counter[str] = Counter()
    for report in reports:
        rejected.update(report.rejected)
    tokens, padded = sum(report.tokens for report in reports), sum(report.padded_tokens for report in reports)
    return {
        "queries": sum(report.queries for report in reports),
        "pairs": sum(report.pairs for report in reports),
        "kept": sum(report.kept for report in reports),
        "rejected": dict(sorted(rejected.items())),
        "truncated": sum(report.truncated for report in reports),
        "tokens": tokens,
        "padding_share": round(1 - tokens / padded, 4) if padded else 0.0,
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a working_dir on a cluster: the source is there, the package is not
            found[package] = "not installed"
    return found
