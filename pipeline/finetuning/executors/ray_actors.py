"""A Ray cluster: actors that each have the model, do a share of every step, and sum their gradients.

Ray Train's controller is not used. It starts a group again after any error, a user's mistake as well, counts
failures over the whole training and not where it gets no further, takes Ctrl-C for itself, and wants storage
of its own for checkpoints that are ours. What is left is this file.

The actors are asked for one step after another, all at once. Where one dies all start anew, from the last
checkpoint, by as many as fit then.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util import get_node_ip_address, placement_group, remove_placement_group
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import distributed

from pipeline import cluster, log
from pipeline.capacity import fit, nodes
from pipeline.errors import DeviceError, OutputError, TemporaryError
from pipeline.finetuning.config import FinetuneConfig
from pipeline.finetuning.examples import KEPT, Examples
from pipeline.finetuning.held_out import HeldOut
from pipeline.finetuning.loop import Done
from pipeline.finetuning.peers import Peers
from pipeline.finetuning.progress import Line, place_of
from pipeline.finetuning.start import starting_point
from pipeline.finetuning.student import scorer_for_training
from pipeline.finetuning.worker import Job, loop_of
from pipeline.job_record import JobRecord, read_record
from pipeline.placement import ActorsConfig
from pipeline.scoring import Scorer
from pipeline.scoring.checkpoint import find_checkpoint
from pipeline.scoring.config import Dtype
from pipeline.scoring.device import resolve_device
from pipeline.tables.outage import wait_out
from pipeline.tables.output.directory import Directory
from pipeline.temporary_folder import spool

_TRIES = 3
"""Starts of the actors that may end in an error without a step that is new."""
_DEATH_S = 5.0
"""How much later than its neighbours' broken connections an actor's death may be told."""
_PATIENCE = timedelta(days=7)
"""For the other actors: the first one measures and writes as long as it takes. Who dies is seen by Ray."""
_MORE_WAIT_S = 10.0
"""For room for as many actors as should fit, before one fewer is tried."""


def fastest_dtype(config: FinetuneConfig) -> Dtype:
    assert config.actors is not None
    cluster.connect([config.actors], 0, encodes=False)
    (dtype,) = cluster.fastest_dtypes([config.actors.place(config.scorer)], [config.actors])
    return dtype


def connect(job: Job) -> None:
    cluster.connect([_actors(job)], job.record.pairs // job.record.shards, encodes=False)


def work(job: Job, tell: Callable[[Line], None]) -> Done:
    told = _ToldOnce(tell)
    share = _Share.of(job)
    tries = 0
    while True:
        before = told.place
        try:
            with _started(_actors(job), share) as actors:
                return _trained(actors, told)
        except RayError as error:
            ours = cluster.own_error(error)
            if ours is not None and not isinstance(ours, DeviceError):  # which other processes may not have
                raise ours from error
            tries = tries + 1 if told.place == before else 1
            if tries == _TRIES:
                _give_up(error, told.place[0])
            log.warning("actors start again", after_step=told.place[0], why=_first_line(error))


def _actors(job: Job) -> ActorsConfig:
    assert job.config.actors is not None
    return job.config.actors


class _ToldOnce:
    """Passes on what is new: after a death steps are done again."""

    def __init__(self, tell: Callable[[Line], None]) -> None:
        self._tell, self.place = tell, (0, 0)

    def __call__(self, line: Line) -> None:
        if (place := place_of(line)) > self.place:
            self.place = place
            self._tell(line)


def _give_up(error: RayError, step: int) -> None:
    """Raises what the reader can do most with: a bug's own trace, or which step no actor survives, perhaps
    since machines were taken away: another start may do better.
    """
    if isinstance(error, RayTaskError):
        raise cluster.own_error(error) or error
    raise TemporaryError(
        f"step {step + 1}: actors died {_TRIES} times before it was done ({_first_line(error)}). Is there"
        " enough memory? Lower training.per_device_train_batch_size, or set gradient_checkpointing"
    ) from error


def _first_line(error: RayError) -> str:
    lines = str(error).strip().splitlines()
    return (lines[-1] if isinstance(error, RayTaskError) else lines[0]) if lines else type(error).__name__


@contextmanager
def _started(actors: ActorsConfig, share: "_Share") -> Iterator[list[Any]]:
    """Actors with room for each, that are gone when the block ends."""
    group = _placed(actors)
    started: list[Any] = []
    of_rank: Any = ray.remote(_Actor)
    try:
        for rank in range(group.bundle_count):
            placed = of_rank.options(
                num_cpus=actors.num_cpus,
                num_gpus=actors.num_gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, rank),
            )
            started.append(placed.remote(share, rank, group.bundle_count))
        yield started
    finally:
        for actor in started:
            ray.kill(actor)
        remove_placement_group(group)


def _placed(actors: ActorsConfig) -> PlacementGroup:
    """Room for as many actors as the cluster can hold, for `min` where others use it.

    Raises TemporaryError where there is none even for those within `wait_s`.
    """
    most = actors.max
    while True:
        # A machine that has just died may still be counted, and others may use the cluster.
        fitting = fit(nodes(), actors.model_copy(update={"min": most}), encodes=False).actors
        count = max(actors.min, fitting)
        group = _room(actors, count)
        if group.wait(min(_MORE_WAIT_S, actors.wait_s) if count == actors.min else _MORE_WAIT_S):
            return group
        if count == actors.min and actors.wait_s > _MORE_WAIT_S:
            why = "the CPUs or GPUs that they need are in use"
            log.warning("waiting for room for the actors", actors=count, wait_s=actors.wait_s, why=why)
            if group.wait(actors.wait_s - _MORE_WAIT_S):
                return group
        remove_placement_group(group)
        if count == actors.min:
            break
        most = count - 1
    raise TemporaryError(
        f"actors: the cluster had no room for {actors.min} actors with {actors.num_cpus:g} CPUs and"
        f" {actors.num_gpus:g} GPUs each within {actors.wait_s:g} s (actors.wait_s). Lower actors.min,"
        " num_cpus or num_gpus, add nodes, or wait for other jobs"
    )


def _room(actors: ActorsConfig, count: int) -> PlacementGroup:
    needs = {"CPU": actors.num_cpus, "GPU": actors.num_gpus}
    group: PlacementGroup = placement_group(
        [{name: amount for name, amount in needs.items() if amount}] * count,
        bundle_label_selector=[actors.label_selector] * count if actors.label_selector else None,
    )
    return group


def _trained(actors: list[Any], tell: Callable[[Line], None]) -> Done:
    place = _all([actors[0].meeting_place.remote()])[0]
    _all([actor.open.remote(place) for actor in actors])
    while (line := _all([actor.advance.remote() for actor in actors])[0]) is not None:
        tell(line)
    done: Done = _all([actors[0].finish.remote()])[0]
    _all([actor.close.remote() for actor in actors])
    return done


def _all(asked: "list[ray.ObjectRef[Any]]") -> list[Any]:
    """What all answer. Raises the error of the first that fails: the others wait for it in vain."""
    waiting = asked
    while waiting:
        ready, waiting = ray.wait(waiting)
        try:
            ray.get(ready)
        except RayTaskError as error:
            if cluster.own_error(error) is None:
                _raise_what_ended_it(waiting)
            raise
    return ray.get(asked)


def _raise_what_ended_it(others: "list[ray.ObjectRef[Any]]") -> None:
    """The death of an actor, or an error of ours, where one of the others has it: those that compute with it
    tell of a broken connection, and sooner.
    """
    ready, _ = ray.wait(others, num_returns=len(others), timeout=_DEATH_S) if others else ([], [])
    for each in ready:
        try:
            ray.get(each)
        except RayTaskError as error:
            if cluster.own_error(error) is not None:
                raise


@dataclass(frozen=True)
class _Share:
    """What an actor gets of a job: all that is read once, by the process that was started."""

    config: FinetuneConfig
    output: Directory
    pieces: "list[ray.ObjectRef[bytes]]"
    """Of the rows. Ray's object stores hold them, and spill to disk what is too large."""
    held_out: HeldOut | None
    record: JobRecord

    @classmethod
    def of(cls, job: Job) -> "_Share":
        actors = _actors(job)
        checkpoint, given = find_checkpoint(job.config.scorer), job.config.scorer
        model = given.model if given.model.startswith("package:") else checkpoint.address
        scorer = actors.place(given.model_copy(update={"model": model, "revision": checkpoint.revision}))
        threads = job.config.num_cpus or max(1, int(actors.num_cpus))
        config = job.config.model_copy(update={"scorer": scorer, "num_cpus": threads})
        pieces = [ray.put(piece) for piece in job.examples.shipped()]
        return cls(config, job.output, pieces, job.held_out, job.record)


class _Actor:
    """Worker `rank` of `world`. What may fail comes after its birth, so that errors arrive as themselves."""

    def __init__(self, share: _Share, rank: int, world: int) -> None:
        self._share, self._rank, self._world = share, rank, world
        self._stack = ExitStack()

    def meeting_place(self) -> str:
        """Where the first actor can wait for the others, unless the port is taken meanwhile."""
        address: Callable[[], str] = get_node_ip_address  # Ray 2.60 gives it no types
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{address()}:{free.getsockname()[1]}"

    def open(self, place: str) -> None:
        """Meet the others and load the last checkpoint."""
        share = self._share
        wait_out(share.config.max_outage_s)
        peers = Peers(self._rank, self._world, resolve_device(share.config.scorer.device))
        self._check_output()
        if peers.device.type == "cuda":
            torch.cuda.set_device(peers.device.index or 0)  # takes no device without a number
        distributed.init_process_group(
            "nccl" if peers.device.type == "cuda" else "gloo",
            init_method=place,
            rank=peers.rank,
            world_size=peers.world,
            timeout=_PATIENCE,
        )
        rows = self._stack.enter_context(spool(KEPT))
        examples = Examples.received(map(ray.get, share.pieces), rows)
        scorer = self._scorer()
        job = Job(share.config, share.output, examples, scorer, share.held_out, share.record)
        self._loop = loop_of(job, peers)
        self._lines = self._loop.run()

    def _check_output(self) -> None:
        """Before hours of training: what this node writes must be seen by all."""
        found = read_record(self._share.output)
        if found is None or found.identity != self._share.record.identity:
            raise OutputError(
                f"{self._share.output.url}: an actor on another node does not see it. On a cluster of several"
                " nodes the output must be in an object store, or in a directory that all nodes share"
            )

    def _scorer(self) -> Scorer:
        config = self._share.config
        return scorer_for_training(self._stack.enter_context(starting_point(config)), config.data)

    def advance(self) -> Line | None:
        """The next line of the metrics; None at the end."""
        return next(self._lines, None)

    def finish(self) -> Done:
        return self._loop.finish()

    def close(self) -> None:
        """Remove what lies in this node's temporary folder."""
        self._stack.close()
