"""`dtype: auto` of a first stage: settled once, before anything is written, for all its actors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from pipeline import registry
from pipeline.retrieval import executors
from pipeline.retrieval.config import scorer_field
from pipeline.retrieval.executors import Executor
from pipeline.retrieval.plan import Job
from pipeline.scoring.config import Dtype


def settled(job: Job, known: Mapping[str, Dtype], *, may_ask: bool) -> Job:
    """With a dtype in place of `auto`.

    known: by the scorer's field, what an earlier start of this job took. Else the machines are asked where
    the actors run, unless `may_ask` is off: then it stays `auto`.
    """
    sources = dict(job.config.sources)
    auto = {name: dense for name, dense in job.config.dense.items() if dense.scorer.dtype == "auto"}
    dtypes = {name: known[scorer_field(name)] for name in auto if scorer_field(name) in known}
    if may_ask and (asked := [name for name in auto if name not in dtypes]):
        executor = cast("Executor", registry.load(executors, job.config.executor))
        scorers = [auto[name].scorer for name in asked]
        dtypes |= zip(asked, executor.fastest_dtypes(job, scorers), strict=True)
    for name, dtype in dtypes.items():
        scorer = auto[name].scorer.model_copy(update={"dtype": dtype})
        dense = auto[name].model_copy(update={"scorer": scorer})
        sources[name] = sources[name].model_copy(update={"dense": dense})
    return replace(job, config=job.config.model_copy(update={"sources": sources}), auto=tuple(auto))
