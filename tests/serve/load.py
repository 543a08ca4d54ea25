"""Clients that ask again and again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2


@asynccontextmanager
async def load(
    url: str, bodies: Iterator[dict[str, Any]], headers: dict[str, str] | None = None, pause_s: float = 0.05
) -> AsyncIterator[list[tuple[int, str]]]:
    """Four clients, and the answers' status and body.

    bodies: one a request. pause_s: after each answer, so that what is starting has the processor.
    """
    answers: list[tuple[int, str]] = []
    going = True

    async def ask(client: httpx2.AsyncClient) -> None:
        while going:
            answer = await client.post("/rerank", json=next(bodies))
            answers.append((answer.status_code, answer.text))
            await asyncio.sleep(pause_s)

    async with httpx2.AsyncClient(base_url=url, timeout=180, headers=headers) as client:
        tasks = [asyncio.create_task(ask(client)) for _ in range(4)]
        try:
            yield answers
        finally:
            going = False
            await asyncio.gather(*tasks)
