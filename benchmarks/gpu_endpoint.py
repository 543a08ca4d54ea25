"""The part of gpu.py that serves a model, as a user starts it, and asks it for scores."""

from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter

import httpx2
import numpy as np
import numpy.typing as npt

from benchmarks.gpu_models import MAX_LENGTH, make_encoder, random_pairs
from benchmarks.gpu_run import Lines, Run, row, table
from benchmarks.servers import rayrank

PASSAGES = 100
"""Of a request, at most."""
LOADS = (1, 10), (1, PASSAGES), (4, PASSAGES), (16, PASSAGES)
"""Clients at once, and the passages that each sends."""
Answer = tuple[float, npt.NDArray[np.float64]]
"""Seconds, and a score a passage."""


def endpoint(run: Run) -> Lines:
    """One replica behind HAProxy, as on a cluster. A client waits for its answer before it asks again.

    A replica's CPUs tokenize.
    """
    path = make_encoder(run.folder, "bge-reranker-v2-m3", run.device, tiny=run.tiny)
    pairs = random_pairs((3 if run.tiny else 160) * PASSAGES)
    query = pairs[0][0]
    requests = [[text for _, text in pairs[at : at + PASSAGES]] for at in range(0, len(pairs), PASSAGES)]
    options = {"max_length": MAX_LENGTH, "dtype": run.dtype}
    expected = run.scorer(path, **options).score([(query, text) for text in requests[0]])
    yield from table("CPUs of the replica", "clients", "passages", "pairs/s", "median ms", "largest ms", "")
    for cpus in (1,) if run.tiny else (1, 4):
        replicas = {"num_cpus": cpus, "num_gpus": int(run.on_cuda)}
        served = {"scorer": {"model": str(path), **options}, "replicas": replicas, "max_wait_s": 60}
        with rayrank(path, served) as server, httpx2.Client(timeout=60) as client:
            url = server.url.replace("/v1/rerank", "/rank")

            def ask(passages: list[str], client: httpx2.Client = client, url: str = url) -> Answer:
                begin = perf_counter()
                answer = client.post(url, json={"query": query, "passages": passages}).raise_for_status()
                seconds = perf_counter() - begin
                ranked = sorted(answer.json()["ranked"], key=lambda passage: passage["index"])
                return seconds, np.array([passage["score"] for passage in ranked])

            far = float(np.abs(ask(requests[0])[1] - expected).max())
            verdict = "right" if far <= 1e-5 else f"**OTHERS, by {far:.1e}**"
            for clients, count in LOADS:
                some = [passages[:count] for passages in requests]
                begin = perf_counter()
                with ThreadPoolExecutor(clients) as pool:
                    waits = [1000 * seconds for seconds, _ in pool.map(ask, some)]
                speed = count * len(some) / (perf_counter() - begin)
                told = f"{speed:.0f}", f"{median(waits):.0f}", f"{max(waits):.0f}"
                yield row(str(cpus), str(clients), str(count), *told, verdict)
