"""A server for the tests of this folder."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.conftest import TINY
from tests.serve.local import LocalServer, serving

LAYERWISE = TINY.replace("tiny-bge-reranker", "tiny-bge-reranker-v2-minicpm-layerwise")


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    """Two models: `tiny`, the default, and `layers`, with three cutoff layers. No API keys."""
    with serving(
        {"tiny": {"model": TINY}, "layers": {"model": LAYERWISE, "cutoff_layers": [2, 3, 4]}}
    ) as made:
        yield made


@pytest.fixture(scope="session")
def client(server: LocalServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as made:
        yield made
