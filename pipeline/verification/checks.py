"""Are scores the same in this process, through the job, through a service, and as published?"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from pipeline.errors import ConfigError, InputError, TemporaryError, fields_under
from pipeline.job_record import read_record
from pipeline.reranking import flow
from pipeline.reranking.calibration import at_hand
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.dtype import settled
from pipeline.tables.config import InputConfig
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.markers import run_files, shard_names
from pipeline.tables.output.run import parquet_bytes, read_run_file
from pipeline.tables.schema import layer_columns
from pipeline.verification.published import BARE, CAPITALS, PUBLISHED

SERVICE_KEY = "RAYRANK_API_KEY"
Scores = npt.NDArray[np.float32]
"""(pairs, cutoff layers)"""

PAIRS = [
    *CAPITALS,
    *BARE,
    ("what is panda?", "hi"),
    ("what is panda?", "The giant panda is a bear species endemic to China."),
    ("what is panda?", ""),
    ("what is panda?", "Pandas eat bamboo. " * 150),
    ("什么是大熊猫？", "大熊猫是中国特有的一种熊科动物。"),
    ("什么是大熊猫？", "Paris est la capitale de la France, très loin d'ici. 🐼"),
    ("", "a passage without a query"),
]
"""Short and long, of several scripts, empty: what a way of scoring might treat in its own way."""

_SHARD_PAIRS = 4
_AWAY = (429, 502, 503, 504)
"""Status codes of a server that has too much to do, or of one before it that does not reach it."""
_TOLERANCE = {"float32": 1e-4, "bfloat16": 0.1, "float16": 0.05, "int8": 0.1}
"""Batches of another composition round otherwise; the more so, the fewer digits there are."""
_PUBLISHED_TOLERANCE = {"float32": 0.03, "bfloat16": 0.3, "float16": 0.03, "int8": 0.3}


@dataclass(frozen=True)
class Check:
    """One way of scoring beside another."""

    name: str
    pairs: int
    difference: float | None
    """The largest; null where it was not compared."""
    tolerance: float
    note: str = ""

    @property
    def agrees(self) -> bool:
        return self.difference is None or self.difference <= self.tolerance


def verify(config: RerankConfig, service: str | None) -> Iterator[Check]:
    """Score PAIRS directly and compare, a Check as each is done.

    service: the URL of a server that speaks text-embeddings-inference's /rerank. Raises RayrankError for what
    a user can mend.
    """
    given = single_scorer(config)
    # In one dtype everywhere, or differences of dtypes would be told: this machine's.
    with fields_under("scorer"):
        scorer = settled(given)
    config = config.with_scorers([scorer])
    pairs = PAIRS if scorer.truncation != "error" else [pair for pair in PAIRS if len(pair[1]) < 200]
    direct = _score(scorer, pairs)
    tolerance = _TOLERANCE[_precision(scorer)]
    yield Check("job", len(pairs), _largest(_through_the_job(config, pairs), direct), tolerance)
    if service is None:
        yield Check("service", 0, None, tolerance, "not asked for: --service URL")
    else:
        served = _through_a_service(service, pairs, raw=not scorer.normalize)
        yield Check("service", len(pairs), _largest(served, direct[:, -1:]), tolerance, service)
    # No promise about published scores is made in whatever dtype `auto` becomes.
    published_in = "float32" if given.dtype == "auto" else scorer.dtype
    yield _as_published(scorer.model_copy(update={"dtype": published_in}))


def single_scorer(config: RerankConfig) -> ScorerConfig:
    """On the device that its actors hold. Raises ConfigError for a cascade, which has several."""
    if config.levels is not None:
        raise ConfigError(
            "levels: scores of one scorer are certified; give a config with the scorer of one level",
            field="levels",
        )
    return config.cascade[0].scorer


def _precision(scorer: ScorerConfig) -> str:
    return scorer.dtype if scorer.quantization is None else scorer.quantization.kind


def _through_the_job(config: RerankConfig, pairs: list[tuple[str, str]]) -> Scores:
    """A real job beside the configured output, with its actors, over several shards."""
    directory = Directory(f"{config.output.path.rstrip('/')}.verify-{uuid.uuid4().hex[:12]}")
    try:
        return _run_job(config, pairs, directory)
    finally:
        directory.remove()


def _run_job(config: RerankConfig, pairs: list[tuple[str, str]], directory: Directory) -> Scores:
    queries = list(dict.fromkeys(query for query, _ in pairs))
    table = pa.table(
        {
            "query_id": [queries.index(query) for query, _ in pairs],
            "query": [query for query, _ in pairs],
            "passage_id": range(len(pairs)),
            "passage": [passage for _, passage in pairs],
        }
    )
    directory.write("candidates.parquet", parquet_bytes(table, "candidates"))
    nothing_more = {"keep_columns": {}, "trec_run": False, "training_rows": None}
    output = config.output.model_copy(update={"path": f"{directory.url}/out", "top_k": None, **nothing_more})
    candidates = InputConfig(path=f"{directory.url}/candidates.parquet")
    changes = {
        "input": candidates,
        "output": output,
        "shard_pairs": _SHARD_PAIRS,
        "qrels": None,
        "fuse": None,
    }
    flow.run(config.model_copy(update=changes))
    columns = layer_columns(single_scorer(config).cutoff_layers or ()) or ["score"]
    scores = np.full((len(pairs), len(columns)), np.nan, np.float32)
    written = Directory(output.path)
    record = read_record(written)
    assert record is not None
    for file, stamp in run_files(written, record.identity, shard_names(record.shards)):
        shard = read_run_file(written, file, stamp)
        scores[shard["passage_id"].to_numpy()] = np.stack(
            [shard[name].to_numpy() for name in columns], axis=1
        )
    return scores


def _through_a_service(url: str, pairs: list[tuple[str, str]], *, raw: bool) -> Scores:
    """A request a query, with the API key that the environment has, if it has one."""
    key = os.environ.get(SERVICE_KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    scores = np.full((len(pairs), 1), np.nan, np.float32)
    for query in dict.fromkeys(query for query, _ in pairs):
        places = [place for place, pair in enumerate(pairs) if pair[0] == query]
        body = {
            "query": query,
            "texts": [pairs[place][1] for place in places],
            "raw_scores": raw,
            "truncate": True,
        }
        try:
            answer = httpx2.post(f"{url.rstrip('/')}/rerank", json=body, headers=headers, timeout=60)
            for result in answer.raise_for_status().json():
                scores[places[result["index"]]] = result["score"]
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError) as error:
            told_as = TemporaryError if _may_answer_later(error) else InputError
            raise told_as(f"{url}: no scores from its /rerank: {type(error).__name__}: {error}") from error
    return scores


def _may_answer_later(error: Exception) -> bool:
    """Whether the server is away or has too much to do."""
    if isinstance(error, httpx2.HTTPStatusError):
        return error.response.status_code in _AWAY
    return isinstance(error, httpx2.TimeoutException | httpx2.NetworkError)


def _as_published(config: ScorerConfig) -> Check:
    """With the options that the published scores were made with, whatever the job's are."""
    name = config.model.rstrip("/").rpartition("/")[2]
    published, tolerance = PUBLISHED.get(name), _PUBLISHED_TOLERANCE[_precision(config)]
    if published is None or config.peft_path is not None:
        why = "has no scores to compare with" if published is None else "with an adapter is another model"
        return Check("published", 0, None, tolerance, f"{name} {why}")
    same = (
        *("model", "revision", "local_files_only", "engine", "device", "dtype", "quantization"),
        "max_batch_tokens",
    )
    as_published = ScorerConfig(**{field: getattr(config, field) for field in same}, **published.options)
    expected = np.array(published.scores, np.float32).reshape(-1, 1)
    scores = _score(as_published, published.pairs)
    check = Check("published", len(published.pairs), _largest(scores, expected), tolerance)
    if check.agrees:
        return check
    worst = int(np.abs(scores - expected)[:, 0].argmax())
    here, there = scores[worst, 0], expected[worst, 0]
    known = f"{published.owner}/{name}"
    note = f"(taken for {known} by its name; the worst pair: {here:.4g} here, {there:.4g} published)"
    return replace(check, note=note)


def _score(config: ScorerConfig, pairs: list[tuple[str, str]]) -> Scores:
    """Leaves no model behind: the next may need the room."""
    with fields_under("scorer"), at_hand(config) as here:
        scores = Scorer(here).score(pairs).reshape(len(pairs), -1)
    torch.cuda.empty_cache()
    return scores


def _largest(scores: Scores, expected: Scores) -> float:
    """NaN, which agrees with nothing, where a score is missing."""
    return float(np.abs(scores - expected).max())
