"""The offline job on Ray Data: plan -> encode (CPU) -> score (one replica an actor) -> rank and commit.

A shard travels as ONE row from stage to stage, so that nothing is shuffled and no query is split. Its data
is written first, its marker last; a start takes only the shards that have no marker.
"""

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache, partial

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from pipeline import log
from pipeline.config import ActorsConfig, RerankConfig
from pipeline.errors import ConfigError, InputError, RayrankError, ScoringError
from pipeline.progress import Progress
from pipeline.ranking import rank
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.encoding import EncodedPairs
from pipeline.summary import Summary, count, versions
from pipeline.tables.candidates import Plan, plan_table, read_shard
from pipeline.tables.manifest import JobRecord, ShardReport, done_shards, mark_done, open_output
from pipeline.tables.run import check_trec_ids, write_shard, write_trec_run
from pipeline.tables.shards import Shard
from pipeline.tables.storage import Directory


def run(config: RerankConfig) -> Summary:
    """Rerank the whole table, or what an earlier start left of it.

    A finished job is not touched: its summary comes back. Raises RayrankError for what a user can mend.
    """
    start = time.monotonic()
    plan = plan_table(config.input, config.output.keep_columns, config.shard_pairs)
    scorer = Scorer(config.scorer)
    output = Directory(config.output.path)
    open_output(output, record_of(config, plan, scorer))
    if output.read("_SUCCESS") is not None and (finished := output.read("summary.json")) is not None:
        log.info("already finished", output=output.url)
        return Summary.model_validate_json(finished)
    reports = done_shards(output, plan.shards)
    done_before = len(reports)
    todo = [shard for shard in plan.shards if shard.name not in reports]
    log.info(
        "planned", shards=len(plan.shards), done=done_before, pairs=sum(shard.pairs for shard in plan.shards)
    )
    for report in _rerank(config, plan, scorer, todo):
        reports[report.name] = report
    if config.output.trec_run:
        write_trec_run(output, [shard.name for shard in plan.shards])
    wall_s = time.monotonic() - start
    summary = Summary(
        output=output.url,
        model=config.scorer.model,
        model_fingerprint=scorer.checkpoint.fingerprint,
        config_fingerprint=config.fingerprint,
        shards=len(plan.shards),
        shards_done_before=done_before,
        top_k=config.output.top_k,
        wall_s=round(wall_s, 2),
        pairs_per_s=round(sum(reports[shard.name].pairs for shard in todo) / wall_s, 2),
        versions=versions(),
        **count(reports.values()),
    )
    output.write("summary.json", summary.model_dump_json(indent=2).encode())
    output.write("_SUCCESS", b"")
    return summary


def record_of(config: RerankConfig, plan: Plan, scorer: Scorer) -> JobRecord:
    """What another start must share with this one to go on with its output."""
    return JobRecord(
        config=config.determining_fields(),
        model_fingerprint=scorer.checkpoint.fingerprint,
        files={piece.file: piece.identity for shard in plan.shards for piece in shard.slices},
    )


def _rerank(config: RerankConfig, plan: Plan, scorer: Scorer, shards: list[Shard]) -> Iterator[ShardReport]:
    """Score and commit the shards; a report each, as they are done."""
    if not shards:
        return
    # All actors must load what was found here, though a branch of the hub may move meanwhile.
    revision = scorer.checkpoint.revision or config.scorer.revision
    pinned = config.model_copy(update={"scorer": config.scorer.model_copy(update={"revision": revision})})
    _connect(config.actors, max(shard.pairs for shard in shards))
    progress = Progress(len(shards), sum(shard.pairs for shard in shards))
    try:
        for row in _dataset(pinned, plan.schema, shards).iter_rows():
            report = ShardReport.model_validate_json(row["report"])
            progress.add(report.pairs)
            yield report
    except Exception as error:
        if (ours := _cause(error)) is not None:
            raise ours from error
        raise
    finally:
        progress.close()


def _dataset(config: RerankConfig, schema: pa.Schema, shards: list[Shard]) -> ray.data.Dataset:
    actors = config.actors
    rows = [{"shard": shard.model_dump_json()} for shard in shards]
    # A job on GPUs encodes on CPUs of its own. One on CPUs has none to spare: its encoding, a few percent
    # of the work, asks for none, or the actors would wait for tasks that wait for their CPUs.
    encode_cpus, encode_tasks = (1, None) if actors.num_gpus else (0, TaskPoolStrategy(size=actors.max))
    return (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map_batches(
            partial(_encode, config=config, schema=schema),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=encode_cpus,
            compute=encode_tasks,
        )
        .map_batches(
            ScoreShard,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=actors.num_cpus,
            num_gpus=actors.num_gpus,
            compute=ActorPoolStrategy(
                min_size=actors.min, max_size=actors.max, max_tasks_in_flight_per_actor=2
            ),
            fn_constructor_kwargs={"config": config.scorer},
        )
        .map_batches(
            partial(_commit, config=config),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=0,
            compute=TaskPoolStrategy(size=2 * actors.max),
        )
    )


def _encode(row: pa.Table, config: RerankConfig, schema: pa.Schema) -> pa.Table:
    """Read a shard and tokenize it."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one core a task, there are many tasks
    start = time.monotonic()
    shard = _shard_of(row)
    candidates, rejects = read_shard(shard, config.input, config.output.keep_columns, schema)
    if config.output.trec_run:
        check_trec_ids(candidates)
    pairs = list(zip(candidates["query"].to_pylist(), candidates["passage"].to_pylist(), strict=True))
    try:
        encoded = _scorer(config.scorer).encode(pairs)
    except ScoringError as error:
        raise _named(error, candidates) from error
    return pa.table(
        {
            "shard": row["shard"],
            "sequences": _fold(encoded.sequences),
            "pairs": _fold(encoded.pairs.to_struct_array()),
            "candidates": _fold(candidates.drop_columns(["query", "passage"]).to_struct_array()),
            "rejects": _fold(rejects.to_struct_array()),
            "encode_s": pa.array([time.monotonic() - start]),
        }
    )


class ScoreShard:
    """The actor: one replica, its weights loaded before the first shard."""

    def __init__(self, config: ScorerConfig) -> None:
        self._scorer = Scorer(config)
        _ = self._scorer.model

    def __call__(self, row: pa.Table) -> pa.Table:
        start = time.monotonic()
        encoded = EncodedPairs(_unfold(row["sequences"]), pa.Table.from_struct_array(_unfold(row["pairs"])))
        try:
            scores, tokens, padded_tokens = self._scorer.forward(encoded)
        except ScoringError as error:
            raise _named(error, pa.Table.from_struct_array(_unfold(row["candidates"]))) from error
        return pa.table(
            {
                "shard": row["shard"],
                "candidates": row["candidates"],
                "rejects": row["rejects"],
                "scores": _fold(pa.array(scores, pa.float32())),
                "truncated": pa.array([sum(encoded.pairs["truncated"].to_pylist())]),
                "tokens": pa.array([tokens]),
                "padded_tokens": pa.array([padded_tokens]),
                "encode_s": row["encode_s"],
                "score_s": pa.array([time.monotonic() - start]),
            }
        )


def _commit(row: pa.Table, config: RerankConfig) -> pa.Table:
    """Rank a shard and write it: data first, marker last."""
    shard = _shard_of(row)
    output = Directory(config.output.path)
    candidates = pa.Table.from_struct_array(_unfold(row["candidates"]))
    rejects = pa.Table.from_struct_array(_unfold(row["rejects"]))
    ranked = rank(candidates, _unfold(row["scores"]).to_numpy(), config.output.top_k)
    write_shard(output, shard.name, ranked, rejects)
    numbers = {
        name: row[name][0].as_py() for name in ("truncated", "tokens", "padded_tokens", "encode_s", "score_s")
    }
    report = ShardReport(
        name=shard.name,
        fingerprint=shard.fingerprint,
        queries=len(candidates["query_id"].unique()),
        pairs=candidates.num_rows,
        kept=ranked.num_rows,
        rejected=dict(Counter(rejects["reason"].to_pylist())),
        **numbers,
    )
    mark_done(output, report)
    return pa.table({"report": [report.model_dump_json()]})


@lru_cache(maxsize=1)
def _scorer(config: ScorerConfig) -> Scorer:
    """One tokenizer a worker process, however many shards it encodes."""
    return Scorer(config)


def _shard_of(row: pa.Table) -> Shard:
    return Shard.model_validate_json(row["shard"][0].as_py())


def _fold(array: pa.Array | pa.ChunkedArray) -> pa.ListArray:
    """A whole column as one value: a list, in a column of one row."""
    whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return pa.ListArray.from_arrays(pa.array([0, len(whole)], pa.int32()), whole)


def _unfold(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks().flatten()


def _named(error: ScoringError, candidates: pa.Table) -> InputError:
    """The same error by the pair's ids and place, which the scorer does not know."""
    ids = candidates.slice(error.index, 1).select(["query_id", "passage_id", "file", "row"]).to_pylist()[0]
    return InputError(
        f"{ids['file']} row {ids['row']}: query {ids['query_id']!r}, passage {ids['passage_id']!r}:"
        f" {error.reason}"
    )


def _cause(error: BaseException | None) -> RayrankError | None:
    """Our own error inside of what Ray wrapped around it."""
    while error is not None:
        if isinstance(error, RayrankError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def _connect(actors: ActorsConfig, largest_shard_pairs: int) -> None:
    """Join the cluster that Ray finds (RAY_ADDRESS, or one on this machine), or start one here."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Ray ends a job that shows no progress in 30 minutes; a large shard on a slow device is healthy work.
    context.execution_no_progress_timeout_s = max(1800, 2 * largest_shard_pairs)
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    cluster: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    _check_resources(actors, cluster)


def _check_resources(actors: ActorsConfig, cluster: dict[str, float]) -> None:
    """Refuse what would wait for ever."""
    cpus, gpus = cluster.get("CPU", 0), cluster.get("GPU", 0)
    needed_cpus = actors.min * actors.num_cpus + (1 if actors.num_gpus else 0)
    if needed_cpus > cpus or actors.min * actors.num_gpus > gpus:
        raise ConfigError(
            f"actors: {actors.min} actors of {actors.num_cpus:g} CPUs and {actors.num_gpus:g} GPUs"
            f"{' and a CPU for encoding' if actors.num_gpus else ''} don't fit the cluster's {cpus:g} CPUs"
            f" and {gpus:g} GPUs; lower actors.min, num_cpus or num_gpus"
        )
