"""Ports for servers of the tests."""

import random
import socket

_RANGE = range(20_000, 32_000)
"""Above those that Ray gives its workers, below those that a system gives to connections: neither takes one
between its choice and the start of its server."""
_given = set[int]()


def free_port() -> int:
    """One of this machine on which nobody listens."""
    while True:
        port = random.SystemRandom().choice(_RANGE)  # a seed would give several test runs the same
        if port in _given:
            continue
        with socket.socket() as one:
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
