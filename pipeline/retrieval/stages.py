"""A first stage's steps, one after another; what an earlier start has done of each is not done again."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import cast

from pipeline import log, output, registry
from pipeline.errors import InputError
from pipeline.retrieval import executors
from pipeline.retrieval.executors import Executor
from pipeline.retrieval.plan import KINDS, Job, Kind
from pipeline.retrieval.reuse import remember
from pipeline.retrieval.shards import WORK
from pipeline.tables.output.done_marker import names_done
from pipeline.tables.output.lease import Lease
from pipeline.tables.output.manifest import Stamps
from pipeline.tables.output.sealed import Stamp
from pipeline.tables.output.tasks import Result, Task, TaskReport, done_before

_GROUP_PASSAGES = 1_000_000
"""What one task searches: enough to be worth its start, little enough to be done again."""
_LOG_EVERY_S = 30.0


class Stages:
    """Of one start."""

    def __init__(self, job: Job, held: Lease, *, check_bytes: bool) -> None:
        """check_bytes: read all files of what is done, to see that they are as they were written. Raises
        ConfigError where the executor has no room.
        """
        self._job, self._held, self._check_bytes = job, held, check_bytes
        self._executor = cast("Executor", registry.load(executors, job.config.executor))
        self._executor.connect(job)
        self._has_work = bool(job.output.names(WORK))
        """Whether an earlier start left it: one that came to its end removed it."""
        self._rejected: Counter[str] = Counter()
        self._empty: Counter[Kind] = Counter()
        self._counts: dict[str, int] = {}
        """Rows of different ids, of both tables, once `run` has read them."""
        self._embedded: dict[str, dict[Kind, Counter[str]]] = {}
        """By dense source."""
        self._files: dict[str, Stamp] = {}
        self.blocks: list[str] = []
        """The shards of queries, by name, once `run` has read them."""
        self.groups = 0
        """In how many groups of passages each of them is searched for."""

    @property
    def files(self) -> Stamps:
        """All that the tasks wrote and readers may see."""
        return self._files

    def run(self) -> Result:
        """The counts of the summary."""
        try:
            passages, queries = (self._read(kind) for kind in KINDS)
        except InputError:
            self._forget_reading()
            raise
        counts = {"passages": self._drop("passages", passages), "queries": self._drop("queries", queries)}
        self._counts = counts
        log.info("read", **counts, shards=len(passages))
        if self._job.config.dense:
            remember(self._job)  # not before: what can't be read leaves the output to another job
        groups = list(_groups(passages))
        self.blocks, self.groups = list(queries), len(groups)
        for source in self._job.config.sources:
            self._search(source, groups, {"passages": passages, "queries": queries})
        merged = self._merge(self.blocks, self.groups)
        assert merged.pop("matched") + merged["unmatched"] == counts["queries"]
        empty = {f"empty_{kind}": self._empty[kind] for kind in KINDS}
        rejected = dict(sorted(self._rejected.items()))
        return {**counts, **empty, **merged, **self._of_embedding(), "rejected": rejected}

    def _of_embedding(self) -> Result:
        every = [count for by_kind in self._embedded.values() for count in by_kind.values()]
        totals = {name: sum(each[name] for each in every) for name in ("embedded", "reused", "tokens")}
        dense = {
            source: {
                f"{kind}_{name}": each[name] for kind, each in by_kind.items() for name in ("embedded", "cut")
            }
            for source, by_kind in self._embedded.items()
        }
        return {**totals, "dense": dense}

    def _read(self, kind: Kind) -> dict[str, int]:
        """The shards by name, each with its rows. Raises InputError where no row can be used."""
        table = self._job.table(kind)
        tasks = []
        for number, ranges in enumerate(self._job.read_together(kind)):
            file_ranges = json.dumps([asdict(each) for each in ranges])
            arguments = {"kind": kind, "number": number, "file_ranges": file_ranges}
            tasks.append(Task(f"read-{kind}-{number:06d}", "read", arguments))
        shards: dict[str, int] = {}
        rejected = Counter[str]()
        for result in self._do("read", tasks).values():
            shards |= result["shards"]
            self._empty[kind] += result["empty"]
            rejected.update(result["rejected"])
        if not shards:
            reasons = ", ".join(f"{rows} {reason}" for reason, rows in sorted(rejected.items()))
            raise InputError(
                f"{table.config.path}: none of its rows can be used as {kind} ({reasons});"
                f" {self._job.output.url}/rejects names each. Mend the table, or correct {kind}.columns, and"
                " start again"
            )
        self._rejected.update(rejected)
        return shards

    def _forget_reading(self) -> None:
        """Where no more was done than reading, leave the output to the mended table, which is another job.

        The rejects stay, for who mends it.
        """
        done = names_done(self._job.output, TaskReport)
        if all(name.startswith("read-") for name in done):
            self._job.output.remove(TaskReport.FOLDER)
            self._job.output.remove(WORK)

    def _drop(self, kind: Kind, shards: dict[str, int]) -> int:
        """How many rows there are of different ids."""
        task = Task(f"drop-{kind}", "drop", {"kind": kind, "shards": shards})
        dropped: dict[str, int] = self._do("drop", [task])[task.name]["rejected"]
        self._rejected.update(dropped)
        return sum(shards.values()) - sum(dropped.values())

    def _merge(self, blocks: list[str], groups: int) -> Result:
        tasks = [Task(f"merge-{block}", "merge", {"block": block, "groups": groups}) for block in blocks]
        merged = dict(zip(blocks, self._do("merge", tasks).values(), strict=True))
        written = [f"part-{block}.parquet" for block, result in merged.items() if result["candidates"]]
        output.check_written(self._job.output, written, self._job.output.names("candidates"), "files")
        totals = {
            name: sum(result[name] for result in merged.values())
            for name in ("candidates", "matched", "unmatched")
        }
        return {**totals, "files": len(written)}

    def _search(self, source: str, groups: list[list[str]], shards: dict[Kind, dict[str, int]]) -> None:
        corpus, blocks = {}, list(shards["queries"])
        if source in self._job.config.dense:
            self._embed(source, shards)
        else:
            corpus = self._index(source, list(shards["passages"]), blocks)
        searches = [
            Task(
                f"search-{source}-{block}-{number:06d}",
                "search",
                {"source": source, "block": block, "group": number, "shards": group, **corpus},
            )
            for block in blocks
            for number, group in enumerate(groups)
        ]
        self._do("search", searches)

    def _index(self, source: str, shards: list[str], blocks: list[str]) -> Result:
        """What the search must know of the whole corpus."""
        tasks = [
            Task(f"index-{source}-{shard}", "index", {"source": source, "shard": shard}) for shard in shards
        ]
        counted = self._do("index", tasks).values()
        words = {"source": source, "shards": shards, "queries": blocks}
        self._do("statistics", [Task(f"statistics-{source}", "statistics", words)])
        return {name: sum(result[name] for result in counted) for name in ("passages", "words")}

    def _embed(self, source: str, shards: dict[Kind, dict[str, int]]) -> None:
        share = [
            Task(f"share-{kind}", "share", {"kind": kind, "shards": its}) for kind, its in shards.items()
        ]
        files = zip(shards, self._do("share", share).values(), strict=True)
        shared = [
            Task(
                f"embed-shared-{source}-{kind}-{number:06d}",
                "embed_shared",
                {"source": source, "kind": kind, "number": number},
            )
            for kind, result in files
            for number in range(result["files"])
        ]
        tasks = [
            Task(f"embed-{source}-{kind}-{shard}", "embed", {"source": source, "kind": kind, "shard": shard})
            for kind, its in shards.items()
            for shard in its
        ]
        log.info("embedding", source=source, **self._counts, shards=len(tasks))
        counts = self._embedded[source] = {kind: Counter[str]() for kind in KINDS}
        for step, its_tasks in (("embed_shared", shared), ("embed", tasks)):
            results = self._do(step, its_tasks)
            for task in its_tasks:
                counts[task.arguments["kind"]].update(results[task.name])

    def _do(self, step: str, tasks: list[Task]) -> dict[str, Result]:
        """What each task gave, by name, in the order of the tasks."""
        results: dict[str, Result] = {}
        done = done_before(
            self._job.output,
            self._job.identity,
            tasks,
            check_bytes=self._check_bytes,
            dropped=None if self._has_work else WORK,
        )
        for report in done:
            results[report.name] = self._heard(report)
        left, logged = [task for task in tasks if task.name not in results], time.monotonic()
        if results:
            log.info("resumed", step=step, done=f"{len(results)}/{len(tasks)}")
        if step == "merge":
            self._held.begins_with(len(results))
        for report in self._executor.work(self._job.for_workers(), left) if left else ():
            results[report.name] = self._heard(report)
            if step == "merge":
                self._held.add(report.result["candidates"])
            if time.monotonic() - logged >= _LOG_EVERY_S:
                log.info("progress", step=step, done=f"{len(results)}/{len(tasks)}")
                logged = time.monotonic()
        return {task.name: results[task.name] for task in tasks}

    def _heard(self, report: TaskReport) -> Result:
        shown = {name: stamp for name, stamp in report.files.items() if not name.startswith(f"{WORK}/")}
        self._files.update(shown)
        return report.result


def _groups(shards: dict[str, int]) -> Iterator[list[str]]:
    """Shards, by name to rows, in stretches of some passages."""
    group: list[str] = []
    rows = 0
    for name, more in shards.items():
        if group and rows + more > _GROUP_PASSAGES:
            yield group
            group, rows = [], 0
        group, rows = [*group, name], rows + more
    if group:
        yield group
