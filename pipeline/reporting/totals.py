"""What the driver remembers of the shards' reports: sums, and no more of them as the job grows."""

import heapq
import math
from collections import defaultdict
from datetime import datetime

from pipeline.tables.output.manifest import Volume, volumes
from pipeline.tables.output.markers import FOLDERS, Counts, ShardReport
from pipeline.tables.output.statistics import MOVERS, Distribution, Mover, RankChanges

SLOWEST = 10
SLOTS_S = (1, 5, 15, 60, 300, 900, 3600, 10_800, 43_200, 86_400)
"""Lengths of time to count pairs by; each holds the one before a whole number of times."""
_MOST_SLOTS = 4096


class Totals:
    """Adds reports up, in any order."""

    def __init__(self) -> None:
        self.done: set[str] = set()
        self.counts = Counts()
        self.scores, self.best_scores, self.rank_changes = Distribution(), Distribution(), RankChanges()
        self.level_scores: tuple[Distribution, ...] = ()
        """Of a cascade, each level's."""
        self.movers: list[tuple[str, Mover]] = []
        """Of all shards, with the shard's name; the farthest first."""
        self.finished: datetime | None = None
        """When the last shard was done."""
        self.timeline = Timeline()
        self.folders = {folder: Volume() for folder in FOLDERS}
        """What the shards wrote."""
        self._slowest: list[tuple[float, str, ShardReport]] = []

    def add(self, report: ShardReport) -> None:
        self.done.add(report.name)
        self.counts = self.counts.plus(report.counts)
        self.scores = self.scores.plus(report.scores)
        self.best_scores = self.best_scores.plus(report.best_scores)
        self.rank_changes = self.rank_changes.plus(report.rank_changes)
        before = self.level_scores or [Distribution()] * len(report.level_scores)
        pairs = zip(before, report.level_scores, strict=True)
        self.level_scores = tuple(sum_.plus(more) for sum_, more in pairs)
        self.timeline.add(report)
        self.finished = max(report.finished, self.finished or report.finished)
        movers = [*self.movers, *((report.name, mover) for mover in report.movers)]
        self.movers = heapq.nsmallest(
            MOVERS, movers, lambda each: (-each[1].came_from, each[0], each[1].first_at)
        )
        for folder, volume in volumes(report.files, FOLDERS).items():
            self.folders[folder] = self.folders[folder].plus(volume)
        heapq.heappush(self._slowest, (report.counts.score_s, report.name, report))
        if len(self._slowest) > SLOWEST:
            heapq.heappop(self._slowest)

    @property
    def slowest(self) -> list[ShardReport]:
        """Longest scored first."""
        return [report for _, _, report in sorted(self._slowest, reverse=True)]


class Timeline:
    """When pairs were scored, by the clocks of the machines that scored them."""

    def __init__(self) -> None:
        self.slot_s = SLOTS_S[0]
        self.pairs: dict[int, float] = {}
        """Number of the slot, counted from the Unix epoch, to the pairs scored in it."""

    def add(self, report: ShardReport) -> None:
        """Its pairs, spread evenly over the time in which they were scored."""
        end = report.finished.timestamp()
        start = min(end - report.counts.score_s, end - 1e-3)
        for slot in range(math.floor(start / self.slot_s), math.floor(end / self.slot_s) + 1):
            inside_s = min(end, (slot + 1) * self.slot_s) - max(start, slot * self.slot_s)
            self.pairs[slot] = self.pairs.get(slot, 0.0) + report.counts.pairs * inside_s / (end - start)
        while len(self.pairs) > _MOST_SLOTS:
            self._coarsen()

    def by(self, slot_s: int) -> dict[int, float]:
        """The same, by slots of slot_s, one of SLOTS_S and no finer than they are kept; in order of time."""
        wider: defaultdict[int, float] = defaultdict(float)
        for slot, pairs in sorted(self.pairs.items()):
            wider[slot * self.slot_s // slot_s] += pairs
        return dict(wider)

    def _coarsen(self) -> None:
        wider = SLOTS_S[SLOTS_S.index(self.slot_s) + 1]
        self.pairs, self.slot_s = self.by(wider), wider
