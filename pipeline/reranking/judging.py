"""How good the run is, by judgments. They are no part of the job: a finished one is not scored again."""

from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from pipeline import log
from pipeline.errors import InputError
from pipeline.job_record import JobRecord
from pipeline.reporting.judged import Judge, Judged, ReadJudge
from pipeline.reporting.summary import Summary
from pipeline.reranking.config import RerankConfig
from pipeline.tables.candidates import Plan, read_ids
from pipeline.tables.input.shards import Shard
from pipeline.tables.input.sought import SoughtQueries
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.manifest import Stamps, in_threads
from pipeline.tables.output.markers import written_files
from pipeline.tables.output.run import read_rejects_file, read_run_file, rejects_file, run_file

Passages = dict[str, list[str]]
"""Of some queries, the ids of their passages, best first."""


def read(config: RerankConfig, read_judge: ReadJudge | None) -> Judge | None:
    """The job's judgments, where it names any. Raises InputError where they can't be read."""
    if config.qrels is None:
        return None
    assert read_judge is not None, "a job with qrels needs what reads them"
    return read_judge(config.qrels)


def check_common(judge: Judge | None, plan: Plan, table: str) -> None:
    """Raises InputError where none of the table's queries is judged."""
    if judge is not None and not plan.found:
        (example, *_) = sorted(judge.queries)
        raise InputError(
            f"qrels {judge.qrels}: judges none of the queries of {table}. It judges {example!r}, say: are"
            " these the table's query ids? To rerank without measures, leave qrels out (--set qrels=null)",
            field="qrels",
        )


def is_judged(summary: Summary, judge: Judge | None) -> bool:
    """Whether the summary of a finished job has what is asked for: the measures by this very file, if any."""
    if judge is None:
        return True
    told = summary.judged
    return told is not None and (told.qrels, told.identity) == (judge.qrels, judge.identity)


def judged(
    judge: Judge,
    config: RerankConfig,
    directory: Directory,
    plan: Plan,
    record: JobRecord,
    written: Sequence[str],
) -> Judged | None:
    """The run beside the input's order of the candidates that were scored, over the written shards.

    Of the table only the shards that hold judged queries are read again. None where it is another one by now:
    what was scored shall not be lost for that.
    """
    sought, after, before = SoughtQueries(judge.queries), Passages(), Passages()
    shards = {shard.name: shard for shard in plan.shards}
    files = dict(zip(written, written_files(directory, record.identity, written), strict=True))
    theirs: list[Shard] = []
    for name, passages in in_threads(partial(_of_the_run, directory, sought), list(files.items())):
        after |= passages
        theirs += [shards[name]] if passages else []
    for shard in theirs:
        rejects = _rejects(directory, shard.name, files[shard.name])
        try:
            ids = read_ids(shard, config.input, config.kept, plan, rejects)
        except InputError as error:
            instead = f"pipeline.evaluate --run {directory.url} --qrels {judge.qrels}"
            log.error("the run is not measured", because=error, instead=instead)
            return None
        before |= sought.passages(ids)
    return judge.measure(before, after, plan.found, config.depth)


def _of_the_run(
    directory: Directory, sought: SoughtQueries, shard: tuple[str, Stamps]
) -> tuple[str, Passages]:
    """shard: its name, and what it wrote. Gives the name again."""
    name, files = shard
    return name, sought.passages(read_run_file(directory, run_file(name), files[run_file(name)]))


def _rejects(directory: Directory, shard: str, files: Stamps) -> pa.Table | None:
    stamp = files.get(rejects_file(shard))
    return None if stamp is None else read_rejects_file(directory, rejects_file(shard), stamp)
