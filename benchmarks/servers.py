"""Servers that rerank, one at a time: the endpoint, and Infinity (infinity-emb) beside it."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

import httpx2
import psutil
import yaml

from pipeline.interruption import raise_interrupts

PORT = 8017


class Server(NamedTuple):
    url: str
    process: psutil.Process

    def memory_mib(self) -> float:
        """Resident, of the process and all that it began."""
        total = 0
        for one in (self.process, *self.process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
        return total / 2**20


@contextmanager
def process(command: list[str], environment: dict[str, str], ready: str) -> Iterator[psutil.Process]:
    """Runs while the block does, also where SIGTERM ends it; begins when `ready` answers 200."""
    # A shell's background job ignores it, as what it starts does then; the other one ends by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise_interrupts()  # else this process ended at once, and the other one stayed
    with tempfile.TemporaryFile() as output:
        running = subprocess.Popen(
            command,
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            for _ in range(600):
                try:
                    if httpx2.get(ready, timeout=5).status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                if running.poll() is not None:
                    break
                time.sleep(0.2)
            else:
                raise RuntimeError(f"not ready in time: {_end_of(output)}")
            if running.poll() is not None:
                raise RuntimeError(f"ended with {running.returncode}: {_end_of(output)}")
            yield psutil.Process(running.pid)
        finally:
            below = _all_below(running.pid)
            running.send_signal(signal.SIGINT)
            try:
                running.wait(timeout=20)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()
            for one in below:  # Ray's are in sessions of their own
                with suppress(psutil.NoSuchProcess):
                    one.kill()


def _all_below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _end_of(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode()[-2000:]


@contextmanager
def rayrank(folder: Path, model: dict[str, Any]) -> Iterator[Server]:
    """model: what the endpoint's config says of it. Its file is written to the folder."""
    config = yaml.safe_load(Path("configs/serve/rerank.yaml").read_text())
    config["http_options"]["port"] = PORT
    config["applications"][0]["args"] |= {"models": {"m": model}, "api": {"keys": "none", "anyone": True}}
    file = folder / "serve.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(file)]
    url = f"http://127.0.0.1:{PORT}"
    variables = {
        "RAY_AUTH_MODE": "disabled",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    }
    with process(command, variables, f"{url}/ready") as running:
        yield Server(f"{url}/v1/rerank", running)


@contextmanager
def infinity(environment: Path, checkpoint: Path, threads: int, batch_size: int) -> Iterator[Server]:
    options = f"--engine torch --device cpu --dtype float32 --no-bettertransformer --batch-size {batch_size}"
    command = [str(environment / "bin/infinity_emb"), "v2", "--model-id", str(checkpoint), *options.split()]
    command += ["--served-model-name", "m", "--host", "127.0.0.1", "--port", str(PORT + 1)]
    variables = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    url = f"http://127.0.0.1:{PORT + 1}"
    with process(command, variables, f"{url}/health") as running:
        yield Server(f"{url}/rerank", running)
