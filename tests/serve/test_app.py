"""The application on Ray Serve: replicas that come, go and die; test_app_without_ray.py has more mistakes."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import count, repeat
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ray import serve as ray_serve
from ray.experimental import internal_kv
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from pipeline.scoring.dtype import fastest_dtype
from serve.app import ScoringReplica, build_app
from serve.config import ModelConfig, ReplicasConfig
from serve.rollout import Rollout
from tests.own_ray import descendants, own_ray
from tests.ports import free_port
from tests.serve.load import load
from tests.serve.test_app_without_ray import arguments

pytestmark = pytest.mark.ray

BODY = {"query": "what is a panda?", "texts": ["hi", "The giant panda is a bear."], "raw_scores": True}
KEY = {"Authorization": "Bearer a-key-of-16-characters"}
READY = {"status": "ok", "not_ready": [], "rollout": "", "keys": ""}
MARKS = [f"{first}{second}" for first in "abcdefghijklmn" for second in "opqrstuvwxyz"]
LARGE: dict[str, Any] = {"query": "q", "texts": [f"{mark} " + "a" * 2000 for mark in MARKS]}
"""Seconds of work for one replica."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where Serve listens."""
    with own_ray(num_cpus=4, num_gpus=1):
        ray_serve.start(http_options={"host": "127.0.0.1", "port": (port := free_port())})
        yield f"http://127.0.0.1:{port}"
        ray_serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's has no types


def deploy(**options: Any) -> None:
    ray_serve.run(build_app(arguments(**options)), name="rerank", route_prefix="/")


def deploy_on_a_gpu(seen: Path, **options: Any) -> None:
    """Two replicas that share it. Each leaves a file that tells what it was given."""

    class StandIn(ScoringReplica):
        """Ray deals out a GPU that is only claimed to be there; the CPU scores."""

        def __init__(self, name: str, config: ModelConfig) -> None:
            given = f"{config.placed_scorer.device} {os.environ['CUDA_VISIBLE_DEVICES']}"
            (seen / str(os.getpid())).write_text(given)
            super().__init__(name, config.model_copy(update={"replicas": ReplicasConfig()}))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve.app.ScoringReplica", StandIn)
        deploy(min=2, max=2, num_gpus=0.5, num_cpus=0, dtype="auto", **options)


@pytest.fixture(scope="module")
def two_replicas(url: str, seen: Path) -> str:
    """Where they serve, for tests that come one after another."""
    deploy_on_a_gpu(seen)
    return url


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seen")


@pytest.fixture(scope="module")
def declared(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The args of one replica that serves whoever has the KEY."""
    ray_serve.delete("rerank")
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("search:a-key-of-16-characters")
    args = arguments(max_surge_percent=100)
    args["api"] = {"keys": {"file": str(file)}, "num_cpus": 0}
    declare(args)
    wait_for(lambda: httpx2.get(f"{url}/ready", timeout=180).status_code == 200)
    return args


@pytest.fixture
def one_replica(url: str, declared: dict[str, Any]) -> Iterator[httpx2.Client]:
    """A client of it."""
    with httpx2.Client(base_url=url, timeout=180, headers=KEY) as client:
        yield client


def declare(args: dict[str, Any]) -> None:
    """What `serve deploy` does with a file of these `args`."""
    application = {"name": "rerank", "route_prefix": "/", "import_path": "serve.app:build_app", "args": args}
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [application]}))


def running() -> int:
    """Replicas of the model."""
    deployment = ray_serve.status().applications["rerank"].deployments["tiny"]
    return sum(number for state, number in deployment.replica_states.items() if state == "RUNNING")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300  # a replica takes a minute to start where others keep the machine busy
    while not condition():
        assert time.monotonic() < end, "did not come about"
        time.sleep(0.1)


def pids() -> list[int]:
    """The replicas' processes."""
    return descendants("ray::ServeReplica:rerank:tiny")


def waiting_s() -> float:
    """Seconds of work that the one replica has before it."""
    handle = ray_serve.get_deployment_handle("tiny", "rerank")
    statistics: dict[str, float] = handle.record_autoscaling_stats.remote().result()
    return statistics["waiting_s"]


def seconds_until_idle() -> float:
    begin = time.monotonic()
    wait_for(lambda: waiting_s() == 0)
    return time.monotonic() - begin


async def more_answers(answers: list[Any], count: int = 20) -> None:
    """Wait for so many."""
    wanted = len(answers) + count
    await asyncio.to_thread(wait_for, lambda: len(answers) >= wanted)


def test_replicas_share_a_gpu(two_replicas: str, seen: Path) -> None:
    wait_for(lambda: running() == 2)
    assert httpx2.post(f"{two_replicas}/rerank", json=BODY, timeout=180).status_code == 200
    assert [file.read_text() for file in seen.iterdir()] == ["cuda 0", "cuda 0"]


def test_replicas_agree_on_a_dtype(two_replicas: str) -> None:
    wait_for(lambda: running() == 2)
    assert httpx2.get(f"{two_replicas}/info").json()["model_dtype"] == fastest_dtype("cpu")
    (key,) = internal_kv._internal_kv_list("rayrank/dtype/rerank/tiny/")
    assert internal_kv._internal_kv_get(key).decode() == fastest_dtype("cpu")


def test_replicas_that_die_and_are_replaced_cost_no_request(two_replicas: str) -> None:
    async def storm() -> list[tuple[int, str]]:
        async with load(two_replicas, repeat(BODY)) as answers:
            for _ in range(2):
                await asyncio.to_thread(wait_for, lambda: len(pids()) == 2)
                await more_answers(answers)
                os.kill(pids()[0], signal.SIGKILL)
                await more_answers(answers)
            await asyncio.to_thread(wait_for, lambda: len(pids()) == running() == 2)
            await more_answers(answers)
        return answers

    answers = asyncio.run(storm())
    assert len(answers) > 50
    assert {status for status, _ in answers} == {200}
    assert len({body for _, body in answers}) == 1


def test_a_rolling_update_costs_no_request(two_replicas: str, seen: Path) -> None:
    before = set(pids())
    assert len(before) == 2

    async def update() -> list[tuple[int, str]]:
        async with load(two_replicas, repeat(BODY)) as answers:
            await more_answers(answers)
            await asyncio.to_thread(deploy_on_a_gpu, seen, max_wait_s=1)
            await asyncio.to_thread(wait_for, lambda: running() == 2 and not before & set(pids()))
            await more_answers(answers)
        return answers

    answers = asyncio.run(update())
    assert len(answers) > 50
    assert {status for status, _ in answers} == {200}


def test_under_overload_some_get_429_at_once_and_the_others_their_scores(two_replicas: str) -> None:
    """After the update they let in what they can score within a second."""

    async def flood() -> list[httpx2.Response]:
        bodies = [LARGE | {"query": f"q {n}"} for n in range(30)]
        async with httpx2.AsyncClient(base_url=two_replicas, timeout=180) as client:
            return await asyncio.gather(*(client.post("/rerank", json=body) for body in bodies))

    answers = asyncio.run(flood())
    refused = [answer for answer in answers if answer.status_code == 429]
    scored = [answer for answer in answers if answer.status_code == 200]
    assert len(refused) + len(scored) == len(answers)
    assert refused[0].json() == {"error": "Model is overloaded", "error_type": "Overloaded"}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert min(answer.elapsed for answer in refused) < min(answer.elapsed for answer in scored)


def test_replicas_come_with_load_go_without_and_come_back_from_zero(url: str) -> None:
    deploy(min=0, max=2, target_wait_s=0.2, upscale_delay_s=0, downscale_delay_s=2)
    with httpx2.Client(base_url=url, timeout=180) as client:
        assert client.post("/rerank", json=BODY).status_code == 200
        wait_for(lambda: client.get("/ready").json() == READY)

        async def press() -> list[tuple[int, str]]:
            # Equal requests that wait are little work, however many they are.
            bodies = (LARGE | {"query": f"q {n}", "texts": LARGE["texts"][:50]} for n in count())
            async with load(url, bodies) as answers:
                await asyncio.to_thread(wait_for, lambda: running() == 2)
            return answers

        assert {status for status, _ in asyncio.run(press())} == {200}
        wait_for(lambda: running() == 0)
        assert client.get("/health").status_code == 200
        assert client.post("/rerank", json=BODY).status_code == 200


def test_a_deadline_is_kept_in_the_dialects_words_and_its_work_dropped(one_replica: httpx2.Client) -> None:
    # So long that the tenth of it kept for the answer is enough on a busy machine: else Ray's proxy answers.
    work = LARGE | {"texts": [*LARGE["texts"], *(f"b {text}" for text in LARGE["texts"])]}
    whole_s = one_replica.post("/rerank", json=work).elapsed.total_seconds()
    deadline = {"X-Request-Timeout-Seconds": f"{whole_s / 3}"}
    late = one_replica.post("/rerank", json=work, headers=deadline)
    assert late.status_code == 408
    assert late.json()["error_type"] == "Backend"
    assert late.elapsed.total_seconds() < whole_s / 2
    assert seconds_until_idle() < whole_s / 2  # two thirds of the work were left
    assert one_replica.post("/rerank", json=BODY).status_code == 200


def test_a_client_that_leaves_is_dropped_from_the_queue(one_replica: httpx2.Client) -> None:
    whole_s = one_replica.post("/rerank", json=LARGE).elapsed.total_seconds()
    for _ in range(5):
        with pytest.raises(httpx2.TimeoutException):
            one_replica.post("/rerank", json=LARGE, timeout=whole_s / 10)
    assert seconds_until_idle() < whole_s  # five times as much would be left
    assert one_replica.post("/rerank", json=BODY).status_code == 200


def test_a_mistaken_deploy_leaves_what_serves_alone_and_a_right_one_holds_no_request(
    url: str, declared: dict[str, Any]
) -> None:
    with httpx2.Client(base_url=url, timeout=180) as client:

        def told(text: str) -> bool:
            return text in client.get("/ready").json()["rollout"] and text in asyncio.run(Rollout().told())

        async def rollouts() -> list[tuple[int, str]]:
            async with load(url, repeat(BODY), KEY, pause_s=0.5) as answers:
                declare(declared | {"api": {"keys": {"env": "NOT_SET_ANYWHERE"}}})
                await asyncio.to_thread(wait_for, lambda: told("NOT_SET_ANYWHERE: is not set here"))
                declare(declared | arguments(num_gpus=2) | {"api": declared["api"]})
                await asyncio.to_thread(
                    wait_for,
                    lambda: told("args.models.tiny.replicas: a replica of num_cpus 1, num_gpus 2 can't"),
                )
                before = {*descendants("ray::ServeReplica:rerank")}
                declare(declared | {"api": declared["api"] | {"timeout_s": 59}})
                await asyncio.to_thread(
                    wait_for, lambda: not before & {*descendants("ray::ServeReplica:rerank")}
                )
                await more_answers(answers)
            return answers

        answers = asyncio.run(rollouts())
        wait_for(lambda: client.get("/ready").json() == READY)  # until all old processes have ended
    assert len(answers) > 50
    assert {status for status, _ in answers} == {200}
