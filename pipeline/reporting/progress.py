"""How far the job is: a line that renews itself on a terminal, a log line a minute elsewhere."""

import shutil
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from pipeline import log
from pipeline.tables.output.attempts import Quarantined
from pipeline.tables.output.markers import Counts, ShardReport

_LOG_EVERY_S = 60.0


class Progress:
    """Of one start: what is done of its shards and their pairs, the speed so far, and the time left at that.

    The device share is the part of their time in which `actors` actors scored; what they waited, and the
    loading of their models, is the rest.
    """

    def __init__(
        self,
        planned: Mapping[str, int],
        actors: int,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """planned: of each shard that this start has to do, its pairs, rows that can't be used among them."""
        self._planned, self._pairs, self._actors = planned, sum(planned.values()), actors
        self._stream, self._clock = stream, clock
        self._counts = Counts()
        self._done = self._quarantined = self._pairs_done = 0
        self._start = self._logged = clock()
        self._terminal = stream.isatty()
        self._show()

    def add(self, outcome: ShardReport | Quarantined) -> None:
        """Another shard is done, or out: then nobody waits for its pairs any more."""
        if isinstance(outcome, ShardReport):
            self._done += 1
            self._pairs_done += self._planned[outcome.name]
            self._counts = self._counts.plus(outcome.counts)
        else:
            self._quarantined += 1
            self._pairs -= outcome.pairs
        self._show()

    def close(self) -> None:
        if self._terminal:
            self._stream.write("\n")

    def _show(self) -> None:
        now = self._clock()
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            self._stream.write(f"\r{self._line(now - self._start)[: columns - 1]}\033[K")
            self._stream.flush()
        elif now - self._logged >= _LOG_EVERY_S:
            log.info("progress", **self._fields(now - self._start))
            self._logged = now

    def _fields(self, wall_s: float) -> dict[str, object]:
        wall_s, counts, done = max(wall_s, 1e-9), self._counts, self._pairs_done
        return {
            "shards": f"{self._done}/{len(self._planned)}",
            "left": clock_time((self._pairs - done) / done * wall_s) if done else "unknown",
            "pairs": f"{done}/{self._pairs}",
            "pairs_per_s": counts.pairs / wall_s,
            "tokens_per_s": round(counts.tokens / wall_s),
            "device_share": f"{counts.score_s / (wall_s * self._actors):.0%}",
            "reused": counts.reused,
            "rejected": sum(counts.rejected.values()),
            "quarantined": self._quarantined,
            **self._level_fields(),
        }

    def _level_fields(self) -> dict[str, object]:
        """Of a cascade: how many pairs each level has scored."""
        levels = self._counts.levels
        return {"level_pairs": "/".join(str(level.pairs) for level in levels)} if levels else {}

    def _line(self, wall_s: float) -> str:
        now = self._fields(wall_s)
        parts = [
            f"{now['shards']} shards",
            f"{now['left']} left",
            f"{now['pairs']} pairs",
            f"{now['pairs_per_s']:.1f} pairs/s",
            f"{now['tokens_per_s']} tokens/s",
            f"device {now['device_share']}",
        ]
        parts += [f"{now[name]} {name}" for name in ("reused", "rejected") if now[name]]
        parts += [f"levels {now['level_pairs']}"] if "level_pairs" in now else []
        parts += [f"{self._quarantined} shards given up"] if self._quarantined else []
        return "  ".join(parts)


def clock_time(seconds: float) -> str:
    """`0:03:12`."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
