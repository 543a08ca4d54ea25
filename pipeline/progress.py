"""A line that tells how far the job is; on a terminal only."""

import sys
import time
from typing import TextIO


class Progress:
    """Shards and pairs done, speed, and the time that is left at that speed."""

    def __init__(self, shards: int, pairs: int, stream: TextIO = sys.stderr) -> None:
        self._shards, self._pairs, self._stream = shards, pairs, stream
        self._done_shards = self._done_pairs = 0
        self._start = time.monotonic()
        self._shown = stream.isatty()

    def add(self, pairs: int) -> None:
        """Another shard is done."""
        self._done_shards += 1
        self._done_pairs += pairs
        self._show()

    def close(self) -> None:
        if self._shown and self._done_shards:
            self._stream.write("\n")

    def _show(self) -> None:
        if not self._shown:
            return
        speed = self._done_pairs / max(1e-9, time.monotonic() - self._start)
        left_s = (self._pairs - self._done_pairs) / speed if speed else 0
        minutes, seconds = divmod(max(0, round(left_s)), 60)
        self._stream.write(
            f"\r{self._done_shards}/{self._shards} shards  {self._done_pairs}/{self._pairs} pairs"
            f"  {speed:.1f} pairs/s  {minutes}:{seconds:02d} left \033[K"
        )
        self._stream.flush()
