"""The first stage: plan, refuse or resume, read, index, search, merge, finish."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import cast

from pipeline import log, output, registry
from pipeline.output import JobRecord
from pipeline.retrieval import executors
from pipeline.retrieval.config import RetrieveConfig
from pipeline.retrieval.executors import Executor
from pipeline.retrieval.merging import trec_lines
from pipeline.retrieval.plan import KINDS, Job, plan, record_of
from pipeline.retrieval.reading import Result
from pipeline.retrieval.shards import WORK, read_table
from pipeline.retrieval.steps import MARKERS, Task, results_before
from pipeline.retrieval.summary import Summary
from pipeline.tables.input.files import log_skipped
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import Lease, lease

RESULTS = ("candidates", "unmatched", "rejects", WORK, MARKERS)
"""The subdirectories that hold results; without any another job may have the directory."""
_GROUP_PASSAGES = 1_000_000
"""What one task searches: enough to be worth its start, little enough to be done again."""
_LOG_EVERY_S = 60.0


def run(config: RetrieveConfig) -> Summary:
    """Find the candidates of all queries, or what an earlier start left of them.

    A finished job is not touched: its summary comes back. Raises RayrankError for what a user can mend.
    """
    start = time.monotonic()
    directory, job, record = _plan(config)
    for source in (job.passages, job.queries):
        log_skipped(source.skipped, of=source.field)
    if (finished := _finished(directory)) is not None:
        log.info("already finished", output=directory.url)
        return finished
    with lease(directory, record.shards, 0) as held:
        output.write_record(directory, record)
        results = _Steps(job, held).run()
        summary = Summary(output=directory.url, **results, wall_s=round(time.monotonic() - start, 2))
        parts = sorted(directory.names("candidates"))
        if config.output.trec_run:
            _write_trec_run(directory, parts)
        output.finish(directory, summary, ("candidates", "unmatched", "rejects"), complete=True)
        directory.remove(WORK)
    return summary


def describe(config: RetrieveConfig) -> str:
    """What `run` would do, as text; starts no Ray. Raises RayrankError for what it would refuse."""
    directory, job, _ = _plan(config)
    done = output.is_complete(directory)
    lines = [f"{source.field:<10} {source.described()}" for source in (job.passages, job.queries)]
    lines.append(f"{'sources':<10} {', '.join(config.sources)}")
    lines.append(f"{'output':<10} {directory.url}{', finished' if done else ''}")
    for source in (job.passages, job.queries):
        lines += [f"{'skipped':<10} {file}: {why}" for file, why in source.skipped.items()]
    return "\n".join(lines)


def _plan(config: RetrieveConfig) -> tuple[Directory, Job, JobRecord]:
    directory = output.open_directory(config.output.path, [config.passages.path, config.queries.path])
    job = plan(config)
    record = record_of(job)
    output.check_output(directory, record, RESULTS, resumes=True)
    return directory, job, record


def _finished(directory: Directory) -> Summary | None:
    written = output.read_summary(directory) if output.is_complete(directory) else None
    if written is None:
        return None
    directory.remove(WORK)  # of a start that was killed after its last word
    summary = Summary.model_validate_json(written)
    return summary.model_copy(update={"finished_before": output.when_finished(directory)})


class _Steps:
    """One after another; what an earlier start has done of each is not done again."""

    def __init__(self, job: Job, held: Lease) -> None:
        self._job, self._held = job, held
        self._executor = cast("Executor", registry.load(executors, job.config.executor))
        self._executor.connect(job)

    def run(self) -> Result:
        """The counts of the summary."""
        read = self._do("read", list(self._read_tasks()))
        shards = {
            kind: {
                name: rows
                for name, result in read.items()
                if kind in name
                for name, rows in result["shards"].items()
            }
            for kind in KINDS
        }
        drop = [Task(f"drop-{kind}", "drop", {"kind": kind, "shards": shards[kind]}) for kind in KINDS]
        dropped = self._do("drop", drop)
        rejected: Counter[str] = Counter()
        for result in [*read.values(), *dropped.values()]:
            rejected.update(result["rejected"])
        passages, queries = (
            sum(shards[kind].values()) - sum(dropped[f"drop-{kind}"]["rejected"].values()) for kind in KINDS
        )
        log.info("read", passages=passages, queries=queries, shards=len(shards["passages"]))
        groups = list(_groups(shards["passages"]))
        for source in self._job.config.sources:
            self._search(source, groups, list(shards["passages"]), list(shards["queries"]))
        merges = [
            Task(f"merge-{block}", "merge", {"block": block, "groups": len(groups)})
            for block in shards["queries"]
        ]
        merged = self._do("merge", merges)
        totals = {
            name: sum(result[name] for result in merged.values())
            for name in ("candidates", "unmatched", "matched")
        }
        assert totals.pop("matched") + totals["unmatched"] == queries
        files = sum(result["candidates"] > 0 for result in merged.values())
        written = [
            f"part-{block}.parquet" for block in shards["queries"] if merged[f"merge-{block}"]["candidates"]
        ]
        output.check_written(self._job.output, written, self._job.output.names("candidates"), "files")
        return {
            **totals,
            "passages": passages,
            "queries": queries,
            "rejected": dict(sorted(rejected.items())),
            "files": files,
        }

    def _read_tasks(self) -> Iterator[Task]:
        for kind in KINDS:
            for number, file_range in enumerate(self._job.table(kind).file_ranges):
                arguments = {"kind": kind, "number": number, "file_range": json.dumps(asdict(file_range))}
                yield Task(f"read-{kind}-{number:06d}", "read", arguments)

    def _search(self, source: str, groups: list[list[str]], shards: list[str], blocks: list[str]) -> None:
        index = [
            Task(f"index-{source}-{shard}", "index", {"source": source, "shard": shard}) for shard in shards
        ]
        counted = self._do("index", index).values()
        corpus = {name: sum(result[name] for result in counted) for name in ("passages", "words")}
        words = {"source": source, "shards": shards, "queries": blocks}
        self._do("statistics", [Task(f"statistics-{source}", "statistics", words)])
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

    def _do(self, step: str, tasks: list[Task]) -> dict[str, Result]:
        """What each task gave, by name, in the order of the tasks."""
        results = results_before(self._job.output, tasks)
        left, logged = [task for task in tasks if task.name not in results], time.monotonic()
        if results:
            log.info("resumed", step=step, done=f"{len(results)}/{len(tasks)}")
        for name, result in self._executor.work(self._job.for_workers(), left) if left else ():
            results[name] = result
            if step == "merge":
                self._held.add(result["candidates"])
            if time.monotonic() - logged >= _LOG_EVERY_S:
                log.info("progress", step=step, done=f"{len(results)}/{len(tasks)}")
                logged = time.monotonic()
        return {task.name: results[task.name] for task in tasks}


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


def _write_trec_run(directory: Directory, parts: list[str]) -> None:
    with directory.writing("run.trec") as stream:
        for part in parts:
            for line in trec_lines(read_table(directory, f"candidates/{part}")):
                stream.write(line.encode())
