"""What a dtype or an engine costs, on a table and judgments whose answer is known."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from pipeline import verify
from pipeline.command import Status
from pipeline.errors import InputError
from pipeline.reranking.config import RerankConfig
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.verification import checks, cost
from tests.conftest import TINY

PASSAGES = ["best", "second", "third", "last"]
EXACT = {"q1": [4.0, 3.0, 2.0, 1.0], "q2": [4.0, 3.0, 2.0, 1.0], "q3": [0.0, 0.0, 0.0, 0.0]}
CHANGED = {"q1": [4.0, 3.0, 2.0, 1.5], "q2": [3.0, 4.0, 2.0, 1.0], "q3": [0.0, 0.0, 0.0, 0.0]}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        {"query_id": query, "query": query, "passage_id": passage, "passage": passage}
        for query in EXACT
        for passage in PASSAGES
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    (tmp_path / "qrels.txt").write_text("q1 0 best 1\nq2 0 best 1\nunseen 0 best 1\n")
    return tmp_path / "in.parquet"


@pytest.fixture(autouse=True)
def _scores(monkeypatch: pytest.MonkeyPatch) -> None:
    def score(self: Scorer, pairs: list[tuple[str, str]]) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
        known = EXACT if self.config.dtype == "float32" else CHANGED
        return np.array([known[query][PASSAGES.index(passage)] for query, passage in pairs], np.float32)

    monkeypatch.setattr(Scorer, "score", score)
    monkeypatch.setattr(checks, "_through_the_job", lambda _config, pairs: np.zeros((len(pairs), 1)))
    monkeypatch.setattr(checks, "_score", lambda _config, pairs: np.zeros((len(pairs), 1)))


def job(table: Path, **scorer: object) -> RerankConfig:
    settings = {
        "input": {"path": str(table)},
        "output": {"path": str(table.parent / "out")},
        "scorer": {"model": TINY, "device": "cpu", **scorer},
        "executor": "here",
    }
    (table.parent / "job.yaml").write_text(yaml.safe_dump(settings))
    return RerankConfig.model_validate(settings)


def test_differences_orders_and_ndcg(table: Path) -> None:
    found = cost.cost_of(job(table, dtype="bfloat16"), str(table.parent / "qrels.txt"), 20)
    assert found is not None
    assert (found.pairs, found.queries) == (8, 2)  # q3 has no judgments
    assert (found.largest, found.mean) == (1.0, 2.5 / 8)
    # Of the six pairs of q2's candidates one is swapped: 1 - 2 / 6.
    assert found.tau == pytest.approx((1 + 2 / 3) / 2)
    assert found.worst_tau == pytest.approx(2 / 3)
    assert found.ndcg == pytest.approx((1.0, (1 + 1 / np.log2(3)) / 2))


def test_queries_whose_candidates_have_no_order_have_no_tau(table: Path) -> None:
    found = cost.cost_of(job(table, dtype="bfloat16"), None, 20)
    assert found is not None
    assert (found.queries, found.ndcg, found.ndcg_loss) == (3, None, 0.0)
    assert found.tau == pytest.approx((1 + 2 / 3) / 2)
    only_one = cost.cost_of(job(table, dtype="bfloat16"), None, 1)
    assert only_one is not None
    assert only_one.queries == 1


def test_torch_in_float32_costs_nothing(table: Path) -> None:
    assert cost.cost_of(job(table), None, 20) is None
    assert cost.is_exact(ScorerConfig(model=TINY))
    assert not cost.is_exact(ScorerConfig(model=TINY, engine="openvino"))


def test_judgments_of_other_queries_are_told(table: Path) -> None:
    (table.parent / "qrels.txt").write_text("other 0 best 1\n")
    with pytest.raises(InputError, match=r"qrels.txt: judges none of the queries of .*in.parquet"):
        cost.cost_of(job(table, dtype="bfloat16"), str(table.parent / "qrels.txt"), 20)


@pytest.mark.parametrize("ids", [pa.string(), pa.binary()])
@pytest.mark.parametrize(("wanted", "compared"), [(2, 2), (20, 5)])
def test_judged_queries_are_found_wherever_they_stand(
    table: Path, wanted: int, compared: int, ids: pa.DataType
) -> None:
    """5 of 100 queries, each of which is a shard: as many as there are, whatever type their ids have."""
    names, judged = [f"{query:03}" for query in range(100) for _ in PASSAGES], (1, 2, 3, 4, 55)
    columns = {
        "query_id": pa.array([name.encode() for name in names], pa.binary()).cast(ids),
        "query": ["q1"] * len(names),
        "passage_id": pa.array([text.encode() for text in PASSAGES] * 100, pa.binary()).cast(ids),
        "passage": PASSAGES * 100,
    }
    pq.write_table(pa.table(columns), table)
    (table.parent / "qrels.txt").write_text("".join(f"{query:03} 0 best 1\n" for query in judged))
    config = job(table, dtype="bfloat16").model_copy(update={"shard_pairs": 1})
    found = cost.cost_of(config, str(table.parent / "qrels.txt"), wanted)
    assert found is not None
    assert (found.queries, found.ndcg) == (compared, (1.0, 1.0))
    many = cost.cost_of(config, None, 40)
    assert many is not None
    assert many.queries == 40


@pytest.mark.parametrize("queries", [25, 272])
def test_as_many_queries_are_compared_as_there_are(table: Path, queries: int) -> None:
    """Shards of 16 queries: one that is short leaves its share to the others, which have more."""
    names = [f"{query:03}" for query in range(queries) for _ in PASSAGES]
    columns = {
        "query_id": names,
        "query": ["q1"] * len(names),
        "passage_id": PASSAGES * queries,
        "passage": PASSAGES * queries,
    }
    pq.write_table(pa.table(columns), table)
    short = job(table, dtype="bfloat16").model_copy(update={"shard_pairs": 64})
    for wanted in (1, 2, 20, 24, 25, 100):
        found = cost.cost_of(short, None, wanted)
        assert found is not None
        assert (found.queries, found.pairs) == (min(wanted, queries), 4 * min(wanted, queries))


def test_equal_scores_are_ranked_as_a_job_ranks_them(table: Path) -> None:
    """By passage id: `best` comes first, where trec_eval would take the last."""
    (table.parent / "qrels.txt").write_text("q3 0 best 1\n")
    found = cost.cost_of(job(table, dtype="bfloat16"), str(table.parent / "qrels.txt"), 20)
    assert found is not None
    assert found.ndcg == (1.0, 1.0)


def test_the_gate_is_the_exit_status(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job(table, dtype="bfloat16")
    arguments = ["--config", str(table.parent / "job.yaml"), "--qrels", str(table.parent / "qrels.txt")]
    assert verify.main(arguments) == Status.DIFFERS
    assert "nDCG@10 LOSES: 1.0000 to 0.8155, a loss of 0.01 is allowed" in capsys.readouterr().out
    assert verify.main([*arguments, "--max-ndcg-loss", "0.2"]) == Status.FINISHED
    shown = capsys.readouterr().out
    assert "cost       beside torch in float32, 8 pairs of 2 queries:" in shown
    assert "scores differ by 1 at most, by 0.31 on average" in shown
    assert "Kendall's tau of a query 0.8333 on average, 0.6667 at worst" in shown
    assert "the table has no more judged queries; 20 were asked for" in shown
    verify.main([*arguments, "--queries", "2"])
    assert "no more judged" not in capsys.readouterr().out


def test_what_has_no_cost_has_no_judgments(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job(table)
    assert verify.main(["--config", str(table.parent / "job.yaml"), "--qrels", "x"]) == Status.MISTAKE
    assert "--qrels: this config computes on torch in float32" in capsys.readouterr().err
