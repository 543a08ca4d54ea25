"""The job killed at random moments, also while it commits and finishes, until it ends: the right bytes?

    python -m benchmarks.kills --minutes 10 --seed 1

A process makes the job's modules ready once and forks a child for every start. A child is killed by a clock,
or by itself at a step of its writing, drawn at random: before a file is written, beside its place (half of
it), between the file and its name, after it. One that ends before finds its output damaged at the next start.
`kills.md` has figures.
"""

import argparse
import logging
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.errors import RayrankError
from pipeline.reranking import flow
from pipeline.reranking.config import RerankConfig
from pipeline.tables.output import directory, local_disk

TINY = Path(__file__).parents[1] / "tests/data/tiny-bge-reranker"
STARTS_OF_A_JOB = 8
"""Kills of one output; the start after the last of them is left to end."""
QUERIES, CANDIDATES, SHARD_PAIRS = 12, 4, 4
_STEPS = (12, 40, 180)
"""Of writing: to finish, to do some shards, to do all."""


def write_table(path: Path) -> None:
    rows = [
        {
            "query_id": number // CANDIDATES,
            "query": f"query {number // CANDIDATES}",
            "passage_id": number,
            "passage": None if number % 11 == 3 else f"passage {number} " * (number % 7 + 1),
        }
        for number in range(QUERIES * CANDIDATES)
    ]
    path.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), path / "table.parquet")


def settings(path: Path, out: str) -> RerankConfig:
    return RerankConfig.model_validate(
        {
            "input": {"path": str(path / "in")},
            "output": {"path": str(path / out), "trec_run": True},
            "scorer": {"model": str(TINY), "device": "cpu"},
            "shard_pairs": SHARD_PAIRS,
            "executor": "here",
        }
    )


def data_of(output: Path) -> dict[str, bytes]:
    """What readers read; the rest holds times."""
    files = [*output.glob("run/*"), *output.glob("rejects/*"), *output.glob("scores/*"), output / "run.trec"]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


class Death:
    """Ends this process at the step of its writing that has this number."""

    def __init__(self, step: int) -> None:
        self._left = step

    def step(self, name: str) -> None:
        self._left -= not name.endswith("attempts")  # which are many, and matter least
        if self._left == 0:
            Path(os.environ["KILLED_AT"]).write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        put, move, link = directory.Directory._put, local_disk.move_into_place, local_disk.link_into_place
        remove = directory.Directory.remove_file

        def dying_put(self_: Any, name: str, write: Any) -> None:
            def half(place: str) -> None:
                write(place)
                self.step(f"written beside: {kind(name)}")

            self.step(f"before: {kind(name)}")
            put(self_, name, half)
            self.step(f"after: {kind(name)}")

        def dying_move(beside: str, target: str) -> None:
            whole = Path(beside).read_bytes()
            Path(beside).write_bytes(whole[: len(whole) // 2])
            self.step(f"half beside: {kind(target)}")
            Path(beside).write_bytes(whole)
            move(beside, target)

        def dying_link(data: bytes, target: str) -> bool:
            self.step(f"before: {kind(target)}")
            made = link(data, target)
            self.step(f"after: {kind(target)}")
            return made

        def dying_remove(self_: Any, name: str) -> None:
            remove(self_, name)
            self.step(f"removed: {kind(name)}")

        # Never undone: this process ends there.
        patch.object(directory.Directory, "_put", dying_put).start()
        patch.object(directory.Directory, "remove_file", dying_remove).start()
        patch.object(directory, "move_into_place", dying_move).start()
        patch.object(directory, "link_into_place", dying_link).start()


def kind(name: str) -> str:
    """Of file, for the figures."""
    folders = ("run/", "rejects/", "scores/", "done/", "attempts/", "driver/")
    files = ("run.trec", "report.html", "summary.json", "plan.json", "files.json", "_SUCCESS")
    kinds = (*folders, *files)
    return next((one.rstrip("/") for one in kinds if one in name), "other")


def start(config: RerankConfig, step: int | None, killed_at: Path) -> int:
    """The number of a child that runs the job, to be killed at that step of its writing."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ["KILLED_AT"] = str(killed_at)
        logging.getLogger("rayrank").setLevel(logging.ERROR)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if step is not None:
            Death(step).arm()
        flow.run(config)
        status = 0
    except RayrankError as error:
        killed_at.write_text(f"error: {error}")
    finally:
        os._exit(status)


def storm(path: Path, luck: random.Random, told: Counter[str]) -> str:
    """One output, killed several times: what is wrong in the end, if anything."""
    config, killed_at = settings(path, "out"), path / "killed"
    for _ in range(STARTS_OF_A_JOB):
        killed_at.unlink(missing_ok=True)
        by_clock = luck.random() < 0.25
        child = start(config, None if by_clock else luck.randrange(1, luck.choice(_STEPS)), killed_at)
        if by_clock:
            time.sleep(luck.uniform(0.0, 1.5))
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        why = killed_at.read_text() if killed_at.exists() else "by the clock"
        if status > 0:
            return why
        if status == 0:  # it ended before its step came; damage it, for the next start to mend
            damage(path / "out", luck, told)
        else:
            told[why] += 1
    for _ in range(2):  # a shard at which three starts were killed is given up by the next, and done after it
        killed_at.unlink(missing_ok=True)
        if os.waitstatus_to_exitcode(os.waitpid(start(config, None, killed_at), 0)[1]) != 0:
            return killed_at.read_text() if killed_at.exists() else "the last start failed"
    if not (path / "out/_SUCCESS").exists():
        return "no _SUCCESS"
    if leftovers := [file for file in (path / "out").rglob("*.tmp") if "driver" not in file.parts]:
        return f"left: {leftovers[0]}"
    return "" if data_of(path / "out") == data_of(path / "undisturbed") else "other bytes"


def damage(output: Path, luck: random.Random, told: Counter[str]) -> None:
    """Cut or remove a file of a finished output."""
    files = sorted(file for folder in ("run", "rejects", "scores") for file in output.glob(f"{folder}/*"))
    victim = luck.choice(files)
    told[f"damaged when finished: {kind(str(victim.relative_to(output)))}"] += 1
    if luck.random() < 0.5:
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[: luck.randrange(50)])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The job killed at random moments")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        parser.error("--minutes: needs more than 0: nothing was killed, and nothing is known")
    torch.set_num_threads(1)
    luck, told = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_table(path / "in")
        flow.run(settings(path, "warm"))  # what a child would import and load first
        child = start(settings(path, "undisturbed"), None, path / "killed")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        outputs, end = 0, time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            shutil.rmtree(path / "out", ignore_errors=True)
            if wrong := storm(path, luck, told):
                kept = f"kills-{options.seed}-{outputs}"
                shutil.copytree(path, kept)
                raise SystemExit(f"output {outputs} of seed {options.seed}: {wrong}; kept in {kept}")
            outputs += 1
    damaged = sum(count for what, count in told.items() if what.startswith("damaged"))
    print(f"{told.total() - damaged} kills and {damaged} damaged files of {outputs} outputs: the right bytes")
    for what, count in sorted(told.items()):
        print(f"{count:6} {what}")


if __name__ == "__main__":
    main()
