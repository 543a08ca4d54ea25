"""The job on a store that fails: errors, slow and cut answers, credentials that expire, an outage."""

import os
import sys
import time
from pathlib import Path

import pytest

from tests.reranking.faults import Faults, faulty_proxy
from tests.reranking.test_survival import begin, data_of, write_table


def finish(path: Path, place: str, **sections: str) -> "tuple[int, str]":
    job = begin(path, place, **sections)
    _, errors = job.communicate(timeout=300)
    return job.returncode, errors


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("undisturbed")
    place = f"{path}/local"
    write_table(f"{place}/in")
    assert finish(path, place, executor="here")[0] == 0
    return data_of(f"{place}/out")


def test_a_store_that_fails_now_and_then_costs_time_and_nothing_else(
    tmp_path: Path, bucket: str, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(f"{bucket}/in")
    faults = Faults(seed=3)
    faults.error, faults.cut_before, faults.cut_after, faults.slow, faults.slow_s = (
        0.05,
        0.05,
        0.05,
        0.05,
        0.3,
    )
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], faults) as url, monkeypatch.context() as inside:
        inside.setenv("AWS_ENDPOINT_URL", url)
        status, errors = finish(tmp_path, bucket, executor="here")
    assert status == 0, errors
    assert faults.injected > 20
    assert data_of(f"{bucket}/out") == undisturbed


def test_an_outage_ends_the_job_in_bounded_time_and_it_goes_on_later(
    tmp_path: Path, bucket: str, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(f"{bucket}/in")
    faults = Faults()
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], faults) as url, monkeypatch.context() as inside:
        inside.setenv("AWS_ENDPOINT_URL", url)
        inside.setenv("AWS_MAX_ATTEMPTS", "2")
        job = begin(tmp_path, bucket, executor="here")
        while not any("_manifest/done/shard" in request for request in faults.requests):
            assert job.poll() is None
            time.sleep(0.05)
        faults.cut_before, begun = 1.0, time.monotonic()
        _, errors = job.communicate(timeout=300)
    assert job.returncode == 2
    assert f"error: {bucket}/" in errors
    assert time.monotonic() - begun < 180
    assert finish(tmp_path, bucket, executor="here")[0] == 0
    assert data_of(f"{bucket}/out") == undisturbed


def test_credentials_that_expire_are_fetched_anew(
    tmp_path: Path, bucket: str, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a machine's role gives them: short-lived, each from the process that the profile names."""
    write_table(f"{bucket}/in")
    script = tmp_path / "credentials.py"
    script.write_text(
        "import json, pathlib, time\n"
        "from datetime import UTC, datetime, timedelta\n"
        f"state = pathlib.Path({str(tmp_path / 'expired')!r})\n"
        "first = not state.exists()\n"
        "life = timedelta(seconds=5) if first else timedelta(hours=1)\n"
        "keys = ('key', 'secret') if first else ('key2', 'secret2')\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': keys[0], 'SecretAccessKey': keys[1],\n"
        "    'Expiration': (datetime.now(UTC) + life).isoformat()}))\n"
    )
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {sys.executable} {script}\n")
    faults = Faults()
    faults.slow, faults.slow_s = 1.0, 0.05  # the job outlives the first ones
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], faults) as url, monkeypatch.context() as inside:
        inside.setenv("AWS_ENDPOINT_URL", url)
        inside.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        inside.delenv("AWS_ACCESS_KEY_ID")
        inside.delenv("AWS_SECRET_ACCESS_KEY")
        job = begin(tmp_path, bucket, executor="here")
        while not any("_manifest/done/shard" in request for request in faults.requests):
            assert job.poll() is None, job.communicate()[1]
            time.sleep(0.05)
        (tmp_path / "expired").touch()
        time.sleep(0.5)
        faults.expired_keys.add("key")
        _, errors = job.communicate(timeout=300)
    assert job.returncode == 0, errors
    assert {"key", "key2"} <= faults.keys
    assert data_of(f"{bucket}/out") == undisturbed


def test_credentials_that_expired_for_good_are_told(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(f"{bucket}/in")
    faults = Faults()
    faults.expired_keys.add("key")
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"], faults) as url, monkeypatch.context() as inside:
        inside.setenv("AWS_ENDPOINT_URL", url)
        status, errors = finish(tmp_path, bucket, executor="here")
    assert status == 2
    assert f"error: {bucket}/in/: can't be read: " in errors
    assert "expired" in errors
    assert "secret" not in errors
