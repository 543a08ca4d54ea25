"""The application where no Ray runs: what its args may say, and how it asks a model."""

import asyncio
import re
import traceback
from pathlib import Path
from typing import Any, cast

import pytest
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, WorkerCrashedError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from pipeline.errors import ConfigError
from serve.app import RemoteModel, build_app
from serve.config import deployment_name
from serve.work import Refused, Work
from tests.conftest import TINY


def arguments(max_wait_s: float = 30, dtype: str = "float32", **replicas: Any) -> dict[str, Any]:
    """Of an application with one model; replicas: fields of its ReplicasConfig."""
    model = {
        # The same bytes, whatever comes along.
        "scorer": {"model": TINY, "dtype": dtype, "max_batch_tokens": 1},
        "replicas": {"num_cpus": 1, **replicas},
        "max_wait_s": max_wait_s,
    }
    return {"models": {"tiny": model}, "api": {"keys": "none", "num_cpus": 0}}


def test_a_mistake_in_the_config_names_its_field() -> None:
    with pytest.raises(ConfigError, match=r"args.models.tiny.replicas.nim: there is no such field"):
        build_app(arguments(nim=1))


@pytest.mark.parametrize(("field", "way_out"), [("actors", "replicas"), ("drop", "top_n of a request")])
def test_a_field_of_a_jobs_level_is_told_with_what_stands_for_it(field: str, way_out: str) -> None:
    levels = {"levels": [{"scorer": {"model": TINY}, field: {}}]}
    with pytest.raises(ConfigError, match=rf"levels.0.{field}: there is no such field; here it is {way_out}"):
        build_app({"models": {"tiny": levels}, "api": {"keys": "none"}})


@pytest.mark.parametrize(
    ("place", "field", "way_out"),
    [
        ("api", "max_client_batch_size", "max_passages"),
        ("api", "max_batch_requests", "max_passages"),
        ("api", "max_concurrent_requests", "max_requests"),
        ("api", "payload_limit", "max_body_bytes"),
        ("api", "api_key", "keys"),
        ("models.tiny", "model_id", "scorer.model"),
        ("models.tiny", "served_model_name", "the model's name"),
        ("models.tiny.scorer", "auto_truncate", "truncation: error"),
    ],
)
def test_an_option_of_text_embeddings_inference_is_told_with_what_stands_for_it(
    place: str, field: str, way_out: str
) -> None:
    """docs/coming-from.md promises it."""
    config = {"models": {"tiny": {"scorer": {"model": TINY}}}, "api": {"keys": "none"}}
    at: dict[str, Any] = config
    for part in place.split("."):
        at = at[part]
    at[field] = 1
    with pytest.raises(
        ConfigError, match=rf"args.{place}.{field}: there is no such field; here it is {way_out}"
    ):
        build_app(config)


@pytest.mark.parametrize("name", ["tiny", "bge-reranker-v2-m3", "a.b_c", "x" * 64])
def test_a_plain_model_names_its_deployment(name: str) -> None:
    assert deployment_name(name) == name


def test_a_model_of_any_name_has_a_deployment_that_serve_can_name() -> None:
    names = ["重排", "重拍", "BAAI/bge-reranker-v2-m3", "a#b", "a b", "a\nb", "api", "x" * 500, ".", "🐼"]
    made = [deployment_name(name) for name in names]
    assert made[2].startswith("BAAI_bge-reranker-v2-m3-")
    assert len({*made, "api"}) == len(names) + 1
    for name in made:
        assert re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name)
    fields = arguments()["models"]["tiny"]
    build_app({"models": dict.fromkeys(names, fields), "api": {"keys": "none"}})
    for name in ("", "default"):
        with pytest.raises(ConfigError, match=r"args.models: .* can't be a model's name"):
            build_app({"models": {name: fields}, "api": {"keys": "none"}})


def test_keys_that_cant_be_had_are_refused_before_what_serves_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("équipe:short")
    monkeypatch.setenv("MY_KEYS", "équipe")
    for keys, message in (
        ({"file": f"{tmp_path}/keys"}, r"entry 1: the key named 'équipe' is too short"),
        ({"env": "MY_KEYS"}, r"entry 1 is no `name:key`"),
        ({"file": f"{tmp_path}/none"}, r"api.keys.file .*/none: No such file"),
        ({"env": "NOT_SET"}, r"api.keys.env NOT_SET: is not set here"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_app(arguments() | {"api": {"keys": keys}})


SECRET = "5f2a-not-for-any-log"


@pytest.mark.parametrize(
    "keys",
    [
        SECRET,
        [SECRET],
        {"search": SECRET},
        {SECRET: "search"},
        {"env": [SECRET]},
        {"env": f"search:{SECRET}"},
        {"file": f"search:{SECRET}"},
        {"env": "KEYS", "file": SECRET},
    ],
)
def test_what_stands_in_place_of_the_keys_is_not_shown(keys: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        build_app(arguments() | {"api": {"keys": keys}})
    assert str(caught.value) == "args.api.keys: needs none, {env: NAME} or {file: PATH}"
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_models_that_cant_be_had_are_refused_before_what_serves_is_touched(tmp_path: Path) -> None:
    for scorer, message in (
        ({"model": f"{tmp_path}/gone"}, r"args.models.tiny.scorer: .*/gone: no such directory"),
        ({"model": "package:no_such_package/model"}, r"args.models.tiny.scorer: .* no Python package"),
        ({"model": TINY, "cutoff_layers": [2]}, r"args.models.tiny.scorer: cutoff_layers"),
        ({"model": TINY, "max_length": 100_000}, r"args.models.tiny.scorer: max_length 100000"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_app({"models": {"tiny": {"scorer": scorer}}, "api": {"keys": "none"}})
    build_app({"models": {"hub": {"scorer": {"model": "an/id-of-a-hub"}}}, "api": {"keys": "none"}})


def test_all_mistakes_are_named() -> None:
    args = arguments() | {"api": {"keys": {"env": "NOT_SET"}}}
    args["models"] |= {"gone": {"scorer": {"model": "./gone"}}, "lost": {"scorer": {"model": "./lost"}}}
    with pytest.raises(
        ConfigError, match=r"args\.api\.keys\.env NOT_SET: .*\nargs\.models\.gone.*\nargs\.models\.lost"
    ):
        build_app(args)
    # Also those of the parts that are right where another is not even understood.
    args["models"]["tiny"]["max_waits"] = 1
    with pytest.raises(
        ConfigError, match=r"args\.models\.tiny\.max_waits: .*\nargs\.api\.keys.*\nargs\.models\.gone"
    ):
        build_app(args)
    args["api"] = {"keys": {"env": "NOT_SET"}, "replica": 1}
    with pytest.raises(ConfigError, match=r"args\.api\.replica: (?s:.*)\nargs\.models\.gone"):
        build_app(args)


def test_behind_haproxy_who_is_served_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    with pytest.raises(ConfigError, match=r"args.api.keys: .* give keys, or set anyone"):
        build_app(arguments() | {"api": {"keys": "none"}})
    build_app(arguments() | {"api": {"keys": "none", "anyone": True}})


def test_a_model_that_could_not_be_started_is_no_bug_of_the_server() -> None:
    class Handle:
        """As Ray's router (2.60): of a deployment that failed for good and has no replica."""

        @property
        def score(self) -> "Handle":
            return self

        async def remote(self, _work: Work) -> Refused:
            raise DeploymentUnavailableError(DeploymentID("tiny"))

    outcome = asyncio.run(RemoteModel(cast("Any", Handle())).score(Work(["q"], ["p"])))
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.retry_after_s) == ("unavailable", 1.0)


def test_what_a_dead_replica_had_is_let_in_by_the_next_within_its_deadline() -> None:
    asked: list[Work] = []
    refused = Refused("unscorable", "the second answer")

    class Handle:
        """Of a deployment of which the first replica dies."""

        @property
        def score(self) -> "Handle":
            return self

        async def remote(self, work: Work) -> Refused:
            asked.append(work)
            if len(asked) == 1:
                await asyncio.sleep(0.1)
                raise RayActorError
            return refused

    work = Work(["q"], ["p"], timeout_s=10)
    assert asyncio.run(RemoteModel(cast("Any", Handle())).score(work)) == refused
    assert [one.accepted for one in asked] == [False, True]
    assert 5 < (asked[1].timeout_s or 0) < 9.95


class _Dying:
    """The handle of a deployment whose replicas all die."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.asked = 0

    @property
    def score(self) -> "_Dying":
        return self

    info = full = score

    async def remote(self, *_: Any) -> Refused:
        self.asked += 1
        raise self.error


_DEATHS: dict[Any, tuple[str, ...]] = {
    RayActorError: (),
    OutOfMemoryError: ("ended by the memory monitor",),
    NodeDiedError: ("gone",),
    WorkerCrashedError: (),
}


@pytest.mark.parametrize("death", _DEATHS, ids=lambda death: death.__name__)
def test_another_replica_is_asked_however_the_first_one_died(death: Any) -> None:
    """And where all die the client is told to come again, also by `/info`."""
    handle = _Dying(death(*_DEATHS[death]))
    model = RemoteModel(cast("Any", handle))
    gone = Refused("unavailable", "replicas died while they worked on it", 1.0)
    assert asyncio.run(model.score(Work(["q"], ["p"]))) == gone
    assert handle.asked == 3
    assert asyncio.run(model.info()) == gone
    assert asyncio.run(model.full()) == gone
