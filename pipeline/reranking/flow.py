"""The offline job on Ray Data: plan -> encode (CPU) -> score, rank, commit (one replica an actor).

A shard travels as ONE row from stage to stage, so that nothing is shuffled and no query is split. Its data
is written first, its marker last; a start takes only the shards that have no marker.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from pipeline import log
from pipeline.cluster import connect, own_error
from pipeline.errors import OutputError, fields_under
from pipeline.reporting.metrics import Metrics
from pipeline.reporting.progress import Progress
from pipeline.reporting.report import render
from pipeline.reporting.summary import Summary, counts, versions
from pipeline.reporting.totals import Totals
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.shard import ScoreShard, encode_shard
from pipeline.scoring import Scorer
from pipeline.tables.candidates import Plan, plan_table
from pipeline.tables.input.shards import Shard
from pipeline.tables.output.attempts import Quarantined, forget_attempts
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import lease
from pipeline.tables.output.markers import (
    JobRecord,
    ShardReport,
    check_all_done,
    check_output,
    count_done,
    done_shards,
    open_output,
)
from pipeline.tables.output.run import write_trec_run
from pipeline.tables.output.score_table import PreviousScores, check_previous
from pipeline.tables.storage import absolute


def run(config: RerankConfig) -> Summary:
    """Rerank the whole table, or what an earlier start left of it.

    A finished job is not touched: its summary comes back. Raises RayrankError for what a user can mend.
    """
    start = time.monotonic()
    output = output_of(config)
    with fields_under("scorer"):
        scorer = Scorer(config.placed_scorer)
    plan = plan_table(config.input, config.output.keep_columns, config.shard_pairs)
    if plan.skipped:
        file, reason = next(iter(plan.skipped.items()))
        log.warning("files left out", files=len(plan.skipped), first=file, reason=reason)
    record = record_of(config, plan, scorer)
    check_output(output, record)
    if output.read("_SUCCESS") is not None and (finished := output.read("summary.json")) is not None:
        log.info("already finished", output=output.url)
        return Summary.model_validate_json(finished)
    if config.reuse:
        check_previous(config.reuse, record)
    quarantined = []
    with lease(output, len(plan.shards), count_done(output)) as held:
        totals = Totals()
        for report in done_shards(output, plan.shards):  # an earlier driver may have ended just now
            totals.add(report)
        done_before, pairs_before = len(totals.done), totals.pairs
        todo = [shard for shard in plan.shards if shard.name not in totals.done]
        log.info("planned", shards=len(plan.shards), done=done_before, pairs=record.pairs)
        if todo:
            connect(config.actors, max(shard.pairs for shard in todo))
        open_output(output, record)
        previous = PreviousScores.of(config.reuse) if config.reuse and todo else None
        forget_attempts(output)
        for result in _rerank(_for_workers(config, scorer), plan, todo, previous):
            if isinstance(result, Quarantined):
                quarantined.append(result)
                log.warning("shard given up", shard=result.name, stage=result.stage)
                continue
            totals.add(result)
            held.add(result.pairs)
        wall_s = time.monotonic() - start
        summary = Summary(
            output=output.url,
            model=config.scorer.model,
            model_fingerprint=scorer.fingerprint,
            config_fingerprint=config.fingerprint,
            shards=len(plan.shards),
            shards_done_before=done_before,
            top_k=config.output.top_k,
            files_skipped=len(plan.skipped),
            wall_s=round(wall_s, 2),
            pairs_per_s=round((totals.pairs - pairs_before) / wall_s, 2),
            versions=versions(),
            quarantined=quarantined,
            **counts(totals),
        )
        _finish(config, output, plan, summary, totals)
    return summary


def _finish(config: RerankConfig, output: Directory, plan: Plan, summary: Summary, totals: Totals) -> None:
    """Check that all is there, and write what stands beside the shards; _SUCCESS where none is missing."""
    quarantined = {shard.name for shard in summary.quarantined}
    there = tuple(shard for shard in plan.shards if shard.name not in quarantined)
    check_all_done(output, there)
    if config.output.trec_run:
        write_trec_run(output, [shard.name for shard in there])
    for subdirectory in ("run", "rejects", "scores", "_manifest/done"):
        output.remove_leftovers(subdirectory)
    settings = config.model_dump(mode="json", exclude_defaults=True)
    slowest = {report.name for report in totals.slowest}
    places = {shard.name: shard.places for shard in plan.shards if shard.name in slowest}
    output.write(
        "report.html",
        render(settings, summary, totals, places).encode(),
    )
    output.write("summary.json", summary.model_dump_json(indent=2).encode())
    if not quarantined:
        output.write("_SUCCESS", b"")


def output_of(config: RerankConfig) -> Directory:
    """The output directory. Raises OutputError where another start would take the output for input."""
    output = Directory(config.output.path)
    if config.input.format == "iceberg":  # a metadata file, or a catalog's name
        return output
    if f"{output.url}/".startswith(f"{absolute(config.input.path).rstrip('/')}/"):
        raise OutputError(
            f"{output.url}: lies inside of the input {config.input.path}; take another output.path"
        )
    return output


def record_of(config: RerankConfig, plan: Plan, scorer: Scorer) -> JobRecord:
    """What another start must share with this one to go on with its output."""
    return JobRecord(
        shards=len(plan.shards),
        pairs=sum(shard.pairs for shard in plan.shards),
        config=config.determining_fields(),
        model_fingerprint=scorer.fingerprint,
        files=plan.identities(),
    )


def _rerank(
    config: RerankConfig, plan: Plan, shards: list[Shard], previous: PreviousScores | None
) -> Iterator[ShardReport | Quarantined]:
    """Score and commit the shards; what became of each, as they are done."""
    if not shards:
        return
    pairs, actors = sum(shard.pairs for shard in shards), min(config.actors.max, len(shards))
    progress = Progress(len(shards), pairs, actors)
    done = len(plan.shards) - len(shards)
    metrics = Metrics(Directory(config.output.path).url, len(plan.shards), done, pairs, actors)
    try:
        for row in _dataset(config, plan, shards, previous).iter_rows():
            if row["report"] is None:
                quarantined = Quarantined.model_validate_json(row["quarantined"])
                progress.quarantine(quarantined)
                metrics.quarantine(quarantined)
                yield quarantined
                continue
            report = ShardReport.model_validate_json(row["report"])
            progress.add(report)
            metrics.add(report)
            yield report
    except Exception as error:
        if (ours := own_error(error)) is not None:
            raise ours from error
        raise
    finally:
        progress.close()


def _for_workers(config: RerankConfig, scorer: Scorer) -> RerankConfig:
    """The config as processes elsewhere must read it: paths absolute, the hub's branch pinned to a commit."""
    checkpoint, given = scorer.checkpoint, config.placed_scorer
    adapter = scorer.adapter
    model = {
        "model": given.model if given.model.startswith("package:") else checkpoint.address,
        "revision": checkpoint.revision,
        "peft_path": adapter and adapter.address,
        "peft_revision": adapter and adapter.revision,
    }
    texts = {"queries": config.input.queries, "passages": config.input.passages}
    texts = {name: path and absolute(path) for name, path in texts.items()}
    return config.model_copy(
        update={
            "input": config.input.model_copy(update=texts),
            "output": config.output.model_copy(update={"path": Directory(config.output.path).url}),
            "scorer": given.model_copy(update=model),
        }
    )


def _dataset(
    config: RerankConfig, plan: Plan, shards: list[Shard], previous: PreviousScores | None
) -> ray.data.Dataset:
    actors, most = config.actors, min(config.actors.max, len(shards))
    rows = [{"shard": shard.model_dump_json()} for shard in shards]
    arguments: dict[str, Any] = {
        "config": config,
        # The plan of a large table is large; the shards themselves travel one by one.
        "plan": replace(plan, shards=()),
        # Once in each node's object store, read from there without a copy by all its processes.
        "previous": previous and partial(ray.get, ray.put(previous)),
    }
    dataset: ray.data.Dataset = ray.data.from_items(rows, override_num_blocks=len(rows))
    if actors.num_gpus:
        # On CPUs of its own, on any node: no GPU waits for texts. On CPUs the actors encode for themselves.
        encode = partial(encode_shard, **arguments)
        dataset = dataset.map_batches(encode, batch_size=1, batch_format="pyarrow", num_cpus=1)
    threads = 2 if actors.num_gpus else 1
    return dataset.map_batches(
        ScoreShard,
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=actors.num_cpus,
        num_gpus=actors.num_gpus,
        label_selector=actors.label_selector,
        compute=ActorPoolStrategy(
            min_size=min(actors.min, most),
            max_size=most,
            max_concurrent_calls_per_actor=threads,
            enable_true_multi_threading=True,
            max_tasks_in_flight_per_actor=2 * threads,
        ),
        fn_constructor_kwargs=arguments,
    )
