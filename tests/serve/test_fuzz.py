"""Raw requests of every odd kind: none is answered with 5xx, none holds a connection."""

import asyncio

import httpx2
import pytest

from serve.front import connection
from tests.conftest import TINY
from tests.serve.fuzz import fire, shots
from tests.serve.local import serving


def test_nothing_that_is_sent_breaks_the_server_or_holds_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 1)
    with serving({"tiny": {"model": TINY}}, timeout_s=2) as server:
        address = httpx2.URL(server.url)
        outcome = asyncio.run(
            fire(address.host, address.port or 0, shots(1, 500), at_once=250, patience_s=25)
        )
        assert outcome.wrong == []
        assert outcome.statuses["valid", 200] > 5
        assert outcome.statuses["stopped body", 408] > 5
        assert outcome.statuses["upgrade", 200] > 5
        assert httpx2.post(f"{server.url}/rerank", json={"query": "q", "texts": ["a"]}).status_code == 200
