"""The job on a store that fails: errors, slow and cut answers, credentials that expire, an outage."""

import asyncio
import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Timer
from typing import Any

import fsspec
import pytest

from pipeline.rerank import main
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from tests.reranking.faults import Faults, faulty_proxy
from tests.reranking.test_survival import config, data_of, write_table
from tests.s3 import Server

QUERIES = 8
"""A shard each: some forty requests to the store."""


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's client and the job wait a tenth as long before they try again."""
    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", lambda delay, *result: sleep(delay / 10, *result))
    monkeypatch.setattr("pipeline.tables.outage._FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr("pipeline.tables.outage._LONGEST_PAUSE_S", 1.0)


def job(path: Path, place: str, **sections: Any) -> int:
    """The status that the command ends with."""
    (path / "job.json").write_text(json.dumps(config(place, executor="here", **sections)))  # JSON is YAML
    return main(["--config", str(path / "job.json")])


@contextmanager
def store_with(faults: Faults, **variables: str | None) -> Iterator[None]:
    """The S3 server seen through them, with environment variables set, or deleted."""
    s3: Any = fsspec.filesystem("s3")
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], faults) as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {"AWS_ENDPOINT_URL": url, **variables}.items():
            patch.delenv(name) if value is None else patch.setenv(name, value)
        s3.clear_instance_cache()
        yield
    s3.clear_instance_cache()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("undisturbed")
    write_table(f"{path}/in", QUERIES)
    assert job(path, str(path)) == 0
    return data_of(f"{path}/out")


def test_a_store_that_fails_now_and_then_costs_time_and_nothing_else(
    tmp_path: Path, bucket: str, undisturbed: dict[str, bytes]
) -> None:
    write_table(f"{bucket}/in", QUERIES)
    faults = Faults(seed=3)
    faults.error = faults.cut_before = faults.cut_after = faults.slow = 0.05
    faults.slow_s = 0.3
    with store_with(faults):
        assert job(tmp_path, bucket) == 0
    assert faults.injected > 20
    assert data_of(f"{bucket}/out") == undisturbed


def test_a_store_that_is_killed_and_comes_back_costs_time_and_nothing_else(
    tmp_path: Path,
    bucket: str,
    s3_server: Server,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Twice: connections are refused for two seconds while the job plans, and cut while it commits."""
    write_table(f"{bucket}/in", QUERIES)
    restarts: list[Timer] = []

    def restart() -> None:
        s3_server.kill()
        restarts.append(Timer(2, s3_server.start))
        restarts[-1].start()

    monkeypatch.setattr("pipeline.tables.output.lease.HEARTBEAT_S", 0.5)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.filesystem("s3").clear_instance_cache()
    settings = RerankConfig.model_validate(config(bucket, executor="here"))
    restart()
    flow.plan_job(settings)
    restarts[0].join()
    assert "Could not connect to the endpoint URL" in caplog.text
    faults = Faults()
    faults.once("scores/shard-000002", restart)
    with store_with(faults):
        assert job(tmp_path, bucket) == 0
    restarts[1].join()
    assert data_of(f"{bucket}/out") == undisturbed


def test_an_outage_ends_the_job_in_bounded_time_and_it_goes_on_later(
    tmp_path: Path,
    bucket: str,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_table(f"{bucket}/in", QUERIES)
    faults, begun = Faults(), []

    def outage() -> None:
        faults.cut_before = 1.0
        begun.append(time.monotonic())

    faults.once("_manifest/done/shard", outage)
    with store_with(faults, AWS_MAX_ATTEMPTS="1"):
        assert job(tmp_path, bucket, max_outage_s=2) == 75
    assert f"error: {bucket}/" in capsys.readouterr().err
    assert 2 < time.monotonic() - begun[0] < 60
    # The last word did not reach the store, and the process lives: its silence is waited for.
    monkeypatch.setattr("pipeline.tables.output.lease.HEARTBEAT_S", 0.5)
    assert job(tmp_path, bucket) == 0
    assert data_of(f"{bucket}/out") == undisturbed


def test_credentials_that_expire_are_fetched_anew(
    tmp_path: Path, bucket: str, undisturbed: dict[str, bytes]
) -> None:
    """As a machine's role gives them: short-lived, each from the process that the profile names."""
    write_table(f"{bucket}/in", QUERIES)
    file, faults = tmp_path / "credentials.json", Faults()

    def give(key: str, secret: str, life: timedelta) -> None:
        keys = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret}
        file.write_text(json.dumps({**keys, "Expiration": (datetime.now(UTC) + life).isoformat()}))

    def expire() -> None:
        give("key2", "secret2", timedelta(hours=1))
        Timer(1.5, faults.expired_keys.add, ["key"]).start()  # what is on its way is still let in

    give("key", "secret", timedelta(minutes=5))  # so little that clients look for newer ones each time
    (tmp_path / "config").write_text(f"[default]\ncredential_process = cat {shlex.quote(str(file))}\n")
    faults.slow, faults.slow_s = 1.0, 0.03  # the job outlives the first ones
    faults.once("_manifest/done/shard", expire)
    profile = {"AWS_CONFIG_FILE": str(tmp_path / "config")}
    with store_with(faults, **profile, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None):
        assert job(tmp_path, bucket) == 0
    assert {"key", "key2"} <= faults.keys
    assert data_of(f"{bucket}/out") == undisturbed


def test_credentials_that_expired_for_good_are_told(
    tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(f"{bucket}/in", QUERIES)
    faults = Faults()
    faults.expired_keys.add("key")
    with store_with(faults):
        assert job(tmp_path, bucket) == 2
    errors = capsys.readouterr().err
    assert f"error: {bucket}/in/: can't be read: " in errors
    assert "expired" in errors
    assert "secret" not in errors
