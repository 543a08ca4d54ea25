"""The job in storms: processes that die of a shard, a killed driver on S3, two drivers at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import TemporaryError
from pipeline.rerank import main
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from pipeline.tables.output.directory import Directory
from pipeline.tables.output.lease import lease
from tests.after_import import after_import
from tests.conftest import ROOT, TINY, golden_cases
from tests.own_ray import joined
from tests.reranking.jobs import WAITING_AFTER_TWO_SHARDS

pytestmark = pytest.mark.ray

Bytes = dict[str, bytes]


def write_table(url: str, queries: int = 16) -> None:
    """Queries of eight candidates, in two files."""
    pairs = golden_cases("tiny-bge-reranker")[0].pairs
    rows = [
        {
            "query_id": f"q{number // 8:02}",
            "query": pairs[number // 8 % 32][0],
            "passage_id": number,
            "passage": pairs[number % 32][1],
        }
        for number in range(8 * queries)
    ]
    for part, start in enumerate((0, 4 * queries)):
        with fsspec.open(f"{url}/part-{part}.parquet", "wb", auto_mkdir=True) as stream:
            pq.write_table(pa.Table.from_pylist(rows[start : start + 4 * queries]), stream)


def config(place: str, out: str = "out", **more: Any) -> dict[str, Any]:
    return {
        "input": {"path": f"{place}/in/"},
        "output": {"path": f"{place}/{out}", "trec_run": True},
        **({} if "levels" in more else {"scorer": {"model": TINY, "device": "cpu"}}),
        "shard_pairs": 8,
        **more,
    }


def data_of(url: str) -> Bytes:
    fs, path = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    files = [*fs.find(f"{path}/run"), f"{path}/run.trec"]
    return {file.removeprefix(f"{path}/"): fs.cat_file(file) for file in files}


@pytest.mark.parametrize("way", ["process", "card"])
def test_shards_that_kill_their_process_are_given_up_and_the_rest_is_done(
    way: str, tmp_path: Path, head: dict[str, str]
) -> None:
    """Or the card on which they are scored: its process is of no use any more."""
    write_table(f"{tmp_path}/in")
    settings = RerankConfig.model_validate(config(str(tmp_path)))

    def deadly() -> None:
        from pipeline.errors import DeviceError  # noqa: PLC0415  (in the actor, as the next)
        from pipeline.reranking import shard, worker  # noqa: PLC0415  (in the actor, which has imported them)

        def score(encoded: Any, scorer: Any) -> Any:
            if encoded.shard.index == 7 and way == "process":
                os.kill(os.getpid(), signal.SIGKILL)
            if encoded.shard.index == 7:
                raise DeviceError("the device cuda failed: CUDA error: unspecified launch failure")
            return shard.score(encoded, scorer)

        setattr(worker, "score", score)  # noqa: B010  (a name that is imported there)

    def hook() -> None:
        after_import("pipeline.reranking.worker", deadly)

    with joined(head, runtime_env={"worker_process_setup_hook": hook}):
        summary = flow.run(settings)
    assert [(one.name, one.stage) for one in summary.quarantined] == [("shard-000007", "score")]
    assert f"  shard-000007, in score: {tmp_path}/in/part-0.parquet from row 57" in summary.as_text()
    assert summary.pairs == 128 - 8
    assert len(list((tmp_path / "out/run").iterdir())) == 15
    assert json.loads((tmp_path / "out/summary.json").read_text())["quarantined"][0]["name"] == "shard-000007"
    assert not (tmp_path / "out/_SUCCESS").exists()
    assert "1 of 16 shards missing" in (tmp_path / "out/report.html").read_text()

    # What killed it is mended.
    again = flow.run(RerankConfig.model_validate(config(str(tmp_path), executor="here")))
    flow.run(RerankConfig.model_validate(config(str(tmp_path), "undisturbed", executor="here")))
    assert (again.quarantined, again.pairs, again.shards_done_before) == ([], 128, 15)
    assert data_of(f"{tmp_path}/out") == data_of(f"{tmp_path}/undisturbed")
    assert not list((tmp_path / "out/_manifest").glob("attempts/*"))


def test_a_model_that_kills_every_process_which_loads_it_ends_the_job(
    tmp_path: Path, head: dict[str, str]
) -> None:
    """As one that is larger than the machines: Ray would start another process for ever."""
    write_table(f"{tmp_path}/in")

    def deadly() -> None:
        from pipeline.scoring import Scorer  # noqa: PLC0415  (in the actor, which has imported it)

        def model(_: Any) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(Scorer, "model", property(model))  # noqa: B010  (a property of this process alone)

    def hook() -> None:
        after_import("pipeline.reranking.worker", deadly)

    with (
        joined(head, runtime_env={"worker_process_setup_hook": hook}),
        pytest.raises(TemporaryError, match=r"^3 processes died while they loaded .*: out of memory perhaps"),
    ):
        flow.run(RerankConfig.model_validate(config(str(tmp_path))))


def begin(path: Path, place: str, program: str = "", **sections: Any) -> "subprocess.Popen[str]":
    """The command, or a `program` that does as it."""
    (path / "job.json").write_text(json.dumps(config(place, **sections)))  # JSON is YAML
    command = ("-c", program) if program else ("-m", "pipeline.rerank")
    return subprocess.Popen(
        [sys.executable, *command, "--config", str(path / "job.json")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_markers(output: Directory, count: int, process: "subprocess.Popen[str]") -> set[str]:
    deadline = time.monotonic() + 120
    while len(names := output.names("_manifest/done")) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return names


def test_a_killed_job_on_s3_goes_on_while_a_second_start_is_refused(
    tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(f"{bucket}/in", queries=32)
    output = Directory(f"{bucket}/out")
    first = begin(tmp_path, bucket, WAITING_AFTER_TWO_SHARDS)
    wait_for_markers(output, 2, first)
    message = f"another start is writing here: process {first.pid} on"
    with pytest.raises(TemporaryError, match=message), lease(output, 1, 0):
        pass
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    # test_chaos.py goes on with a Ray; where shards are scored changes no byte.
    assert main(["--config", str(tmp_path / "job.json"), "--set", "executor=here"]) == 0
    assert f"rows in {bucket}/out/run" in capsys.readouterr().out
    local = tmp_path / "local"
    write_table(f"{local}/in", queries=32)
    flow.run(RerankConfig.model_validate(config(str(local), executor="here")))
    assert data_of(f"{bucket}/out") == data_of(f"{local}/out")
