"""`serve run configs/serve/rerank.yaml`, as a user starts it."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import httpx2
import psutil
import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.conftest import TINY
from tests.own_ray import environment, folder_of_its_own
from tests.ports import free_port
from tests.serve.fuzz import Outcome, fire, shots

pytestmark = pytest.mark.ray

CONFIG = Path("configs/serve/rerank.yaml")
BODY = {"query": "what is a panda?", "texts": ["hi", "The giant panda is a bear."]}
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(BaseHTTPRequestHandler):
    """Takes OTLP traces over HTTP."""

    spans: list[Any]

    def do_POST(self) -> None:
        export = ExportTraceServiceRequest()
        export.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in export.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        pass


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """Where to send traces, and what came."""
    spans: list[Any] = []
    server = HTTPServer(("127.0.0.1", 0), type("Handler", (Collector,), {"spans": spans}))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()
    thread.join()


class Running(NamedTuple):
    """`serve run`, its URL, its Ray's directory and the traces that it sent."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]
    spans: list[Any]


@contextmanager
def serve_run(haproxy: bool, port: int | None = None) -> Iterator[Running]:
    """The config as it stands, but for port, model and tracing. port: null is a free one."""
    with folder_of_its_own() as folder, collector() as (traces, spans):
        port = port or free_port()
        config = yaml.safe_load(CONFIG.read_text())
        config["http_options"]["port"] = port
        config["tracing_config"] = {
            "enabled": True,
            "exporter_import_path": "serve.tracing:otlp",
            "sampling_ratio": 1.0,
        }
        arguments = config["applications"][0]["args"]
        arguments["models"]["minilm"]["scorer"] = {"model": TINY}
        arguments["api"] |= {"anyone": haproxy, "timeout_s": 12}
        file = folder / "rerank.yaml"
        file.write_text(yaml.safe_dump(config))
        variables = environment(folder) | {
            "RAY_SERVE_ENABLE_HA_PROXY": str(int(haproxy)),
            "RAY_SERVE_THROUGHPUT_OPTIMIZED": str(int(haproxy)),
            "RAY_SERVE_LOG_TO_STDERR": "1",  # off where throughput is optimized
            "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "15",
            # Half a minute of itself, in which load balancers are to see that a replica goes.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),  # else the same one for all on this machine
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
            "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.app:guard",
            "RAY_metrics_report_interval_ms": "1000",
            "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "500",
            "OTEL_EXPORTER_OTLP_ENDPOINT": traces,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        command = [str(Path(sys.executable).parent / "serve"), "run", str(file)]
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                command, env=os.environ | variables, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            yield Running(f"http://127.0.0.1:{port}", folder, process, spans)
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def both() -> Iterator[dict[str, Running]]:
    """They start side by side, since much of a start is waiting."""
    with serve_run(haproxy=False) as proxy, serve_run(haproxy=True) as haproxy:
        yield {"proxy": proxy, "haproxy": haproxy}


@pytest.fixture(params=["proxy", "haproxy"])
def running(request: pytest.FixtureRequest, both: dict[str, Running]) -> Running:
    return both[str(request.param)]


def eventually(attempt: Any, seconds: float = 300) -> Any:
    end = time.monotonic() + seconds
    while True:
        try:
            if result := attempt():
                return result
        except httpx2.TransportError:
            pass
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.2)


def test_until_it_is_ready_it_says_503(both: dict[str, Running]) -> None:
    """From the proxy's first answer on. HAProxy's own are 404 until it knows the endpoint."""
    url, seen = both["proxy"].url, []

    def is_ready() -> bool:
        answer = httpx2.get(f"{url}/ready", timeout=70)
        seen.append((answer.status_code, answer.headers.get("retry-after")))
        return answer.status_code == 200

    eventually(is_ready)
    assert (503, "1") in seen  # the guard's; that of the API, for a model that is loading, has no Retry-After
    assert {status for status, _ in seen} == {200, 503}


def test_it_becomes_ready_and_scores(running: Running) -> None:
    url = running.url
    eventually(lambda: httpx2.get(f"{url}/ready", timeout=10).status_code == 200)
    answer = httpx2.post(f"{url}/rerank", json=BODY, headers={"X-Request-ID": "an-id"})
    assert [entry["index"] for entry in answer.json()] in ([0, 1], [1, 0])
    assert answer.headers["x-request-id"] == "an-id"
    assert "<title>" in httpx2.get(url).text


def test_it_says_once_when_it_can_answer(running: Running) -> None:
    url, folder, *_ = running

    def lines() -> list[str]:
        return re.findall(r"ready url=.*", (folder / "output").read_text(errors="replace"))

    assert eventually(lines) == [f"ready url={url} models=minilm"]


def test_a_second_endpoint_on_a_port_is_refused(both: dict[str, Running]) -> None:
    first = both["proxy"]
    with serve_run(haproxy=False, port=httpx2.URL(first.url).port) as second:
        second.process.wait(timeout=180)
        told = (second.folder / "output").read_text(errors="replace")
    message = r"http_options\.port: 127\.0\.0\.1:\d+: Address already in use\. .* stop it, or set another"
    assert re.search(rf"{message} .*`serve shutdown -y -a http://[\d.]+:\d+` before", told)
    assert httpx2.post(f"{first.url}/rerank", json=BODY, timeout=60).status_code == 200


def test_prometheus_sees_the_requests(running: Running) -> None:
    url = running.url
    httpx2.post(f"{url}/v2/rerank", json={"query": "q", "documents": []})
    discovery = eventually(lambda: next(running.folder.rglob("prom_metrics_service_discovery.json"), None))
    (target,) = json.loads(discovery.read_text())[0]["targets"][:1]
    wanted = {
        r'ray_rayrank_requests_total\{.*problem="".*status="200"',
        r'ray_rayrank_requests_total\{.*path="/v2/rerank".*problem="empty".*status="400"',
        r"ray_rayrank_served_pairs_total\{.*model=\"minilm\"",
        r"ray_rayrank_served_tokens_total\{",
        r"ray_rayrank_request_seconds_bucket\{",
        r"ray_rayrank_queue_seconds_bucket\{",
        r"ray_rayrank_device_seconds_total\{",
        r"ray_rayrank_batch_fill_bucket\{",
    }

    def all_there() -> bool:
        text = httpx2.get(f"http://{target}/metrics", timeout=10).text
        return all(re.search(pattern, text) for pattern in wanted)

    assert eventually(all_there)


def test_a_trace_follows_a_request_through_its_processes(running: Running) -> None:
    url = running.url
    httpx2.post(f"{url}/rerank", json=BODY, headers={"traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01"})

    wanted = {"POST /rerank", "route_to_replica minilm score", "replica_handle_request minilm score"}
    eventually(lambda: wanted <= {span.name for span in running.spans if span.trace_id.hex() == TRACE_ID})
    assert str(BODY["query"]) not in str(running.spans)


def test_bytes_beyond_ascii_in_headers_are_served(running: Running) -> None:
    for path, body in (("/rerank", BODY), ("/rank", {"query": "q", "passages": ["a"]})):
        answer = httpx2.post(f"{running.url}{path}", json=body, headers=[(b"X-Request-ID", b"\xff\xe9 id")])
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "%FF%E9 id")


def test_an_offer_to_upgrade_is_passed_over(running: Running) -> None:
    for protocol in ("h2c", "websocket"):
        offer = {"Connection": "Upgrade", "Upgrade": protocol}
        answer = httpx2.post(f"{running.url}/rerank", json=BODY, headers=offer, timeout=10)
        if (protocol, answer.status_code) != ("websocket", 400):  # HAProxy's, for want of a key
            assert (answer.status_code, len(answer.json())) == (200, 2)


def test_nothing_that_is_sent_breaks_it_or_holds_a_connection(both: dict[str, Running]) -> None:
    """Side by side, since both wait for what does not come."""

    async def fire_at_both() -> list[Outcome]:
        addresses = [httpx2.URL(running.url) for running in both.values()]
        return await asyncio.gather(
            *(fire(one.host, one.port or 0, shots(2, 200), at_once=50, patience_s=40) for one in addresses)
        )

    for name, outcome in zip(both, asyncio.run(fire_at_both()), strict=True):
        assert outcome.wrong == [], name
        assert outcome.statuses["valid", 200] > 2, name
        assert outcome.statuses["stopped body", 408] > 2, name


def test_an_api_that_dies_is_a_503_in_the_dialects_words(both: dict[str, Running]) -> None:
    running = both["proxy"]  # HAProxy says 500 in its own words
    [api] = [
        process
        for process in psutil.Process(running.process.pid).children(recursive=True)
        if (process.cmdline() or [""])[0].startswith("ray::ServeReplica:rerank:api")
    ]
    address = httpx2.URL(running.url)
    with socket.create_connection((address.host, address.port or 0), timeout=60) as connection:
        connection.sendall(b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        connection.sendall(b"Content-Length: 100\r\n\r\n{")  # so that the API has it, and waits
        time.sleep(1)
        api.kill()
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"error_type":"Unhealthy"' in answer
    eventually(lambda: httpx2.post(f"{running.url}/rerank", json=BODY, timeout=70).status_code == 200)


def test_an_interrupt_ends_it_gracefully(both: dict[str, Running]) -> None:
    outputs = {name: running.folder / "output" for name, running in both.items()}
    # Ray tells of clients that left in a traceback.
    before = {name: len(output.read_text()) for name, output in outputs.items()}
    for running in both.values():
        running.process.send_signal(signal.SIGINT)
    for running in both.values():
        running.process.wait(timeout=60)
    for name, output in outputs.items():
        told = output.read_text()[before[name] :]
        assert "Traceback" not in told, name
        assert "failed to shut down" not in told, name
