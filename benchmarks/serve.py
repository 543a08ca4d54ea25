"""Does the endpoint keep up with its scorer, what does it add to a lone request, and what becomes of more
requests than it can take? Beside Infinity (infinity-emb), with the same checkpoint, machine and load.

Run it from the repository root, on a machine that does nothing else:

    PYTHONPATH=. python benchmarks/serve.py --collection DIR --infinity VENV [--seconds 60] [--rounds 1]

DIR is a collection (docs.jsonl, queries.jsonl, run.bm25.txt); VENV an environment of its own with
infinity-emb[server,torch] (0.0.78 needs `pip install torch==2.13.0 "infinity-emb[server,torch]"`); without it
Infinity is left out. A request is a query with `--passages` of its BM25 run, of real lengths. The checkpoint
is the one of benchmarks/scorer.py: XLM-R, 12 layers of width 384, random weights, float32.

The load is open-loop: requests arrive by a schedule (exponential gaps, fixed seed) whether or not earlier
ones are answered, and a latency counts from the moment that the schedule says. 100 % is what the bare Scorer
scores, handed all requests' pairs at once, on the same threads. The systems take turns in a fresh process
each: `serve run` with one replica of `--threads` CPUs, behind HAProxy as on a cluster, and `infinity_emb v2`
with as many threads; what is left of the machine's cores is for HTTP, Ray and the clients. A refusal is a
429. Pairs a second are those of answers that came while the schedule ran, after its first 10 seconds, in
which the queue fills; beside them stands what the bare Scorer does right afterwards, handed at once the pairs
of those very answers. MiB are resident, of all of a server's processes, after a level's last answer. For what
a lone request costs, the bare Scorer and the server that waits beside it take turns, request by request.
Where the server tells its own times, there is also what it takes beside tokenization, queue and inference,
which varies less than scoring does.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import numpy as np
import torch

from benchmarks.collection import rows_of, with_files
from benchmarks.scorer import MAX_LENGTH, make_checkpoint, model_config, print_machine
from benchmarks.servers import infinity, rayrank
from pipeline.scoring import Scorer, ScorerConfig

SEED = 20
LEVELS = (0.25, 0.5, 0.75, 1.0, 1.5)
CAPACITY_REQUESTS, LONE_REQUESTS = 30, 100
FILLING_S = 10


class Request(NamedTuple):
    query: str
    passages: list[str]


class Answer(NamedTuple):
    request: Request
    status: int
    latency_s: float
    """From its time in the schedule."""
    done_at_s: float
    """From the schedule's begin."""


def sample_requests(collection: Path, passages: int) -> list[Request]:
    """Every query's first passages, in a fixed random order."""
    queries = {row["_id"]: row["text"] for row in rows_of(collection / "queries.jsonl")}
    texts = {
        row["_id"]: f"{row['title']} {row['text']}".strip() for row in rows_of(collection / "docs.jsonl")
    }
    hits: dict[str, list[str]] = {}
    for line in (collection / "run.bm25.txt").read_text().splitlines():
        query_id, _, passage_id, *_ = line.split()
        hits.setdefault(query_id, []).append(texts[passage_id])
    requests = [
        Request(queries[key], found[:passages]) for key, found in hits.items() if len(found) >= passages
    ]
    random.Random(SEED).shuffle(requests)
    return requests


def body(request: Request) -> dict[str, Any]:
    """What both take."""
    return {"model": "m", "query": request.query, "documents": request.passages, "return_documents": False}


async def offer(url: str, requests: list[Request], rate: float, seconds: float) -> list[Answer]:
    """Requests at `rate` a second, by a schedule."""
    gaps = np.random.default_rng(SEED).exponential(1 / rate, int(3 * rate * seconds) + 10)
    arrivals = [float(moment) for moment in np.cumsum(gaps) if moment < seconds]
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=600, limits=limits) as client:
        begin = time.perf_counter()

        async def one(number: int, arrival_s: float) -> Answer:
            await asyncio.sleep(max(0.0, arrival_s - (time.perf_counter() - begin)))
            request = requests[number % len(requests)]
            answer = await client.post(url, json=body(request))
            done_at_s = time.perf_counter() - begin
            return Answer(request, answer.status_code, done_at_s - arrival_s, done_at_s)

        return await asyncio.gather(*(one(number, arrival_s) for number, arrival_s in enumerate(arrivals)))


class Lone(NamedTuple):
    """One request while nobody else asks. Milliseconds."""

    served: float
    bare: float
    """The bare Scorer with the same pairs."""
    beside_scoring: float
    """Of `served`, what the server's headers don't tell as tokenization, queue and inference."""


_TOLD = ("x-tokenization-time", "x-queue-time", "x-inference-time")


def lone_latencies(url: str, scorer: Scorer, requests: list[Request]) -> list[Lone]:
    found = []
    with httpx2.Client(timeout=600) as client:
        for request in requests:
            begin = time.perf_counter()
            answer = client.post(url, json=body(request)).raise_for_status()
            between = time.perf_counter()
            scorer.score([(request.query, passage) for passage in request.passages])
            bare = (time.perf_counter() - between) * 1000
            served = (between - begin) * 1000
            told = sum(float(answer.headers.get(name, "nan")) for name in _TOLD)
            found.append(Lone(served, bare, served - told))
    return found


def print_lone(name: str, lone: list[Lone]) -> None:
    served, bare = (percentile([one[column] for one in lone], 50) for column in (0, 1))
    added = percentile([one.served - one.bare for one in lone], 50)
    beside = percentile([one.beside_scoring for one in lone], 50)
    print(
        f"{name}, lone requests, medians: {served:.0f} ms, the bare Scorer {bare:.0f} ms,"
        f" between them {added:+.1f} ms, beside its scoring {beside:.1f} ms",
        flush=True,
    )


def speed_of(scorer: Scorer, requests: list[Request]) -> float:
    """Pairs a second with all pairs at hand."""
    pairs = [(request.query, passage) for request in requests for passage in request.passages]
    scorer.score(pairs[:8])
    begin = time.perf_counter()
    scorer.score(pairs)
    return len(pairs) / (time.perf_counter() - begin)


def percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else float("nan")


def print_level(
    name: str, level: float, answers: list[Answer], seconds: float, scorer: Scorer, memory_mib: float
) -> None:
    accepted = [answer for answer in answers if answer.status == 200]
    refused = [answer.latency_s for answer in answers if answer.status == 429]
    other = len(answers) - len(accepted) - len(refused)
    counted = [answer.request for answer in accepted if FILLING_S < answer.done_at_s <= seconds]
    speed = sum(len(request.passages) for request in counted) / (seconds - FILLING_S)
    bare = speed_of(scorer, counted)
    latencies = [answer.latency_s for answer in accepted]
    told = f", refused within {percentile(refused, 95) * 1000:.0f} ms (p95)" if refused else ""
    print(
        f"| {name} | {level:.0%} | {len(answers)} | {len(refused)} | {percentile(latencies, 50):.2f}"
        f" | {percentile(latencies, 95):.2f} | {percentile(latencies, 99):.2f}"
        f" | {speed:.1f} | {bare:.1f} | {memory_mib:.0f} |{told}{f' {other} errors' if other else ''}",
        flush=True,
    )


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The endpoint under an open-loop load, beside Infinity")
    parser.add_argument(
        "--collection", type=with_files("run.bm25.txt"), required=True, help="docs, queries and a BM25 run"
    )
    parser.add_argument("--infinity", type=Path, help="an environment with infinity-emb")
    parser.add_argument("--infinity-batch-size", type=int, default=8)
    parser.add_argument("--passages", type=int, default=10, help="of a request")
    parser.add_argument("--seconds", type=float, default=60, help="of load at each level, more than 10")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-wait-s", type=float, default=2, help="of the endpoint's config")
    parser.add_argument("--levels", type=float, nargs="*", default=LEVELS)
    options = parser.parse_args(arguments)
    if options.seconds <= FILLING_S:
        parser.error(
            f"--seconds: needs more than {FILLING_S}: in so many the queue fills, and nothing counts"
        )
    return options


def main() -> None:
    options = parse_arguments()
    requests = sample_requests(options.collection, options.passages)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder)
        make_checkpoint(checkpoint, model_config(384), embedder=False)
        settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
        (checkpoint / "tokenizer_config.json").write_text(
            json.dumps(settings | {"model_max_length": MAX_LENGTH})
        )
        print_machine(options.threads)
        torch.set_num_threads(options.threads)
        scorer = Scorer(
            ScorerConfig(model=folder, device="cpu", max_length=MAX_LENGTH, truncation="longest_first")
        )
        speed = speed_of(scorer, requests[:CAPACITY_REQUESTS])
        print(f"bare Scorer: {speed:.1f} pairs/s")
        for turn in range(options.rounds):
            model = {
                "scorer": {"model": folder, "max_length": MAX_LENGTH, "truncation": "longest_first"},
                "replicas": {"num_cpus": options.threads},
                "max_wait_s": options.max_wait_s,
            }
            systems = {"rayrank": rayrank(checkpoint, model)}
            if options.infinity is not None:
                systems["Infinity"] = infinity(
                    options.infinity, checkpoint, options.threads, options.infinity_batch_size
                )
            print(
                "\n| system | load | requests | refused | p50 s | p95 s | p99 s | pairs/s | bare | MiB |"
                "\n|" + " --- |" * 10
            )
            for name in list(systems)[:: -1 if turn % 2 else 1]:
                with systems[name] as server:
                    lone_latencies(server.url, scorer, requests[:5])  # warm
                    print_lone(name, lone_latencies(server.url, scorer, requests[:LONE_REQUESTS]))
                    for level in options.levels:
                        rate = level * speed / options.passages
                        answers = asyncio.run(offer(server.url, requests, rate, options.seconds))
                        print_level(name, level, answers, options.seconds, scorer, server.memory_mib())


if __name__ == "__main__":
    main()
