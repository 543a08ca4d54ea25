"""`dtype: auto` of a job: settled once, before anything is written, for all its actors."""

from collections.abc import Mapping, Sequence
from typing import cast

from pipeline import registry
from pipeline.reranking import executors
from pipeline.reranking.config import RerankConfig
from pipeline.reranking.executors import Executor
from pipeline.scoring import Scorer
from pipeline.scoring.config import Dtype


def settled(
    config: RerankConfig, scorers: Sequence[Scorer], known: Mapping[str, Dtype], *, may_ask: bool
) -> RerankConfig:
    """With a dtype in place of `auto`, in the scorers (one a level) too.

    known: by the scorer's field, what an earlier start of this job took. Else the machines are asked where
    the actors run, unless `may_ask` is off: then it stays `auto`.
    """
    auto = {f"{level.under}scorer": level for level in config.cascade if level.scorer.dtype == "auto"}
    dtypes = {field: known[field] for field in auto if field in known}
    if may_ask and (asked := [field for field in auto if field not in dtypes]):
        executor = cast("Executor", registry.load(executors, config.executor))
        dtypes |= zip(asked, executor.fastest_dtypes([auto[field] for field in asked]), strict=True)
    placed = [level.scorer for level in config.cascade]
    for field, dtype in dtypes.items():
        number = auto[field].number
        scorers[number].settle(dtype)
        placed[number] = placed[number].model_copy(update={"dtype": dtype})
    return config.with_scorers(placed)
