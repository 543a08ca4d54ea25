"""Joining a cluster; tests/reranking/executors/test_ray_data.py works on one."""

import inspect
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Thread

import grpc
import pytest
import ray

from pipeline import cluster, own_ray, ray_address
from pipeline.errors import ConfigError, RayrankError, TemporaryError
from pipeline.placement import ActorsConfig
from tests.ports import free_port


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("http://head:8265", ConfigError, r"no address of a cluster, .*6379; a job .* `ray job submit`"),
        ("head", ConfigError, "no address of a cluster, such as head:6379$"),
        ("head:port", ConfigError, "no address of a cluster, such as head:6379$"),
        # A head's name may be known a moment later, as that of a service on Kubernetes.
        ("nowhere.invalid:6379", TemporaryError, r"no cluster answers there \(.*\); start it, or unset RAY"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_message(
    address: str, kind: type[RayrankError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray_address, "_PATIENCE_S", 0.1)
    with pytest.raises(kind, match=message):
        cluster.join(no_progress_s=1800)


def test_a_machine_too_busy_to_start_a_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    source = inspect.getsource(ray._private.node)
    assert cluster._TOO_SLOW[0] in source  # Ray's words

    def init() -> None:
        told = f"The current node {cluster._TOO_SLOW[0]}. This could happen because ..."
        raise Exception(told)  # noqa: TRY002  (as Ray does)

    monkeypatch.setattr(own_ray, "_init", init)
    with pytest.raises(TemporaryError, match="Ray did not start on this machine within its 30 seconds"):
        cluster.join(no_progress_s=1800)


def test_a_port_where_nothing_listens_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr(ray_address, "_PATIENCE_S", 1.5)
    start = time.monotonic()
    with pytest.raises(TemporaryError, match="Connection refused"):
        cluster.join(no_progress_s=1800)
    assert time.monotonic() - start >= 1.5  # a head that has just been started was waited for


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (b"", TemporaryError, "timed out"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConfigError, "what listens there is no Ray: it does not speak"),
        (b"-ERR", TemporaryError, "timed out"),
    ],
)
def test_another_server_at_the_address_is_told_in_time(
    answer: bytes, kind: type[RayrankError], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(ray_address, "_PATIENCE_S", 0.1)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                while connection.recv(1024):
                    pass

        thread = Thread(target=serve)
        thread.start()
        with pytest.raises(kind, match=rf"no cluster answers there \({told}.*\); start it, or unset"):
            cluster.join(no_progress_s=1800)
        thread.join()


def _refuse(_request: bytes, context: grpc.ServicerContext) -> bytes:
    """As Ray 2.60 answers who has no token, or another one."""
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken: Authentication token is missing")
    return b""


def test_a_cluster_that_asks_for_a_token_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    handlers = {"CheckAlive": grpc.unary_unary_rpc_method_handler(_refuse)}
    service = grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", handlers)
    server.add_generic_rpc_handlers((service,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    monkeypatch.setenv("RAY_ADDRESS", address)
    for mode in ("disabled", None):
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with pytest.raises(ConfigError, match=rf"RAY_ADDRESS {address}: that cluster asks for a token; set"):
            cluster.join(no_progress_s=1800)
    server.stop(None)


@pytest.mark.ray
def test_a_ray_at_the_address_is_known(on_head: str) -> None:
    host, _, port = on_head.rpartition(":")
    assert ray_address._speaks_grpc((host, int(port)), timeout=15)


@pytest.mark.ray
@pytest.mark.usefixtures("on_head")
def test_work_that_stands_still_may_go_on_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where all machines with GPUs are gone: Ray waits for one, and then no longer."""
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 1)
    held = ray.data.from_items([1]).map_batches(lambda batch: batch, num_gpus=1, batch_size=1)
    with (
        pytest.raises(
            TemporaryError, match=r"nothing was done for 1 s\. .*0 GPUs.*start again when there is.*shards"
        ),
        cluster.own_errors(),
    ):
        held.materialize()


@pytest.mark.parametrize("name", ["WorkerCrashedError", "OutOfMemoryError", "NodeDiedError"])
def test_processes_that_die_again_and_again_may_do_better_later(name: str) -> None:
    error = getattr(ray.exceptions, name)
    with pytest.raises(TemporaryError, match=rf"out of memory perhaps \({name}\)\. What is done stays"):
        raise_there(error() if name == "WorkerCrashedError" else error("gone"))


def raise_there(error: Exception) -> None:
    with cluster.own_errors():
        raise error


@pytest.mark.parametrize("address", ["", "auto"])
def test_what_a_cluster_that_died_left_is_named(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_address, "_PATIENCE_S", 0.1)
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    with pytest.raises(TemporaryError, match="ray_current_cluster .* or remove that file"):
        cluster.join(no_progress_s=1800)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("", "none that runs now: one would be started on this machine"),
        ("local", "none that runs now: one would be started on this machine"),
        ("auto", "RAY_ADDRESS auto: no cluster runs on this machine; start it, or unset RAY_ADDRESS"),
        ("http://head:8265", "RAY_ADDRESS 'http://head:8265': is no address of a cluster"),
        ("ray://head:10001", "RAY_ADDRESS 'ray://head:10001': is no address of a cluster, such as head:6379"),
    ],
)
def test_a_dry_run_tells_where_no_cluster_is(
    address: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    # `auto` finds any cluster of this machine by its processes, those of other tests, too.
    monkeypatch.setattr(ray._private.services, "find_gcs_addresses", cache(set))
    assert cluster.describe([ActorsConfig()]).startswith(told)
    assert not ray.is_initialized()


@pytest.mark.parametrize(
    "actors", [ActorsConfig(num_gpus=512), ActorsConfig(min=9999, max=9999, label_selector={"zone": "a"})]
)
def test_a_dry_run_tells_what_a_ray_on_this_machine_would_lack(
    actors: ActorsConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    told = cluster.describe([actors])
    assert told.startswith("none that runs now: one would be too small on this machine: actors: ")
    assert told.endswith(" Lower actors.min, num_cpus or num_gpus, or add nodes")
    assert not ray.is_initialized()
