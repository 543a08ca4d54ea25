"""Whether an endpoint holds whatever is sent to it. Run it from the repository root:

PYTHONPATH=. python benchmarks/edge.py --url http://127.0.0.1:8000 --requests 10000
"""

import argparse
import asyncio
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from urllib.parse import urlsplit

import psutil

from tests.serve.fuzz import fire, shots

_PARTS = 5
"""After each of them memory is read."""
_EDGE = ("ray::ProxyActor", "ray::HAProxyManager", "ray::ServeReplica:rerank:api")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--at-once", type=int, default=100)
    parser.add_argument("--patience-s", type=float, default=90, help="the deadline, and some seconds")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    address = urlsplit(arguments.url)
    try:
        socket.create_connection((address.hostname or "127.0.0.1", address.port or 80), timeout=10).close()
    except OSError as error:
        parser.error(f"--url {arguments.url}: no server answers there: {error.strerror or error}")
    print(f"before: {_memory()}")
    statuses: Counter[int] = Counter()
    wrong = 0
    for part in range(_PARTS):
        begin = time.monotonic()
        some = shots(arguments.seed + part, arguments.requests // _PARTS)
        outcome = asyncio.run(
            fire(
                address.hostname or "127.0.0.1",
                address.port or 80,
                some,
                at_once=arguments.at_once,
                patience_s=arguments.patience_s,
            )
        )
        for (_, status), count in outcome.statuses.items():
            statuses[status] += count
        for shot, answer in outcome.wrong:
            print(f"wrong: {shot!r:.1000} got {answer!r:.300}")
        wrong += len(outcome.wrong)
        took_s = time.monotonic() - begin
        print(f"{took_s:.0f} s, oldest connection {outcome.oldest_s:.1f} s, {_memory()}", flush=True)
    print(f"answers by status (0: closed without one): {dict(sorted(statuses.items()))}, wrong: {wrong}")
    sys.exit(bool(wrong))


def _memory() -> str:
    """Of the processes that hold connections, on this machine."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            name = (process.cmdline() or [""])[0]
            if name.startswith(_EDGE) or name.rpartition("/")[2] == "haproxy":
                memory = process.memory_full_info().uss / 2**20
                found.append(f"{name.removeprefix('ray::').partition('#')[0][:40]} {memory:.0f} MiB")
    return ", ".join(sorted(found))


if __name__ == "__main__":
    main()
