"""Where processes that hold a model run: how many there are, and what each takes of the cluster."""

import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from pipeline.scoring.config import ScorerConfig

_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"(([A-Za-z0-9]([A-Za-z0-9_.-]{{0,251}}[A-Za-z0-9])?)?/)?{_LABEL}")
_LABEL_VALUE = re.compile(rf"|!?{_LABEL}|!?(in)?\({_LABEL}(,{_LABEL})*\)")
"""As Ray 2.60 checks them (_private/label_utils.py), where a job would end with a trace."""


class Placement(BaseModel):
    """A pool of processes, each with one model replica: the offline job's actors, the endpoint's replicas."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    min: int = Field(default=1, ge=0)
    """Processes that are always there."""
    max: PositiveInt = 1
    """Processes at most."""
    num_cpus: float = Field(default=1, ge=0)
    """CPUs that each process takes, and the threads that its model computes with."""
    num_gpus: float = Field(default=0, ge=0)
    """A part of one, such as 0.5, lets several processes share a GPU."""
    label_selector: dict[str, str] = {}
    """Ray's labels of the nodes to run on: `{ray.io/accelerator-type: in(A100, H100)}`."""

    @field_validator("label_selector")
    @classmethod
    def _labels_are_rays(cls, value: dict[str, str]) -> dict[str, str]:
        """Ray 2.60 takes the blank in in(A100, H100) for a part of the label."""
        selector = {key: wanted.replace(" ", "") for key, wanted in value.items()}
        for key, wanted in selector.items():
            if not (_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(wanted)):
                raise ValueError(
                    f"{key}: {wanted} is no selector of Ray's labels: those are up to 63 of a-z, A-Z, 0-9,"
                    " `-`, `_` and `.`, a key with or without prefix/; a value is a label, !label or in(a, b)"
                )
        return selector

    @field_validator("num_gpus")
    @classmethod
    def _gpus_are_whole_or_parts_of_one(cls, value: float) -> float:
        if value > 1 and not value.is_integer():
            raise ValueError(f"{value:g} GPUs: Ray gives a part of one GPU, or whole ones")
        return value

    @model_validator(mode="after")
    def _min_is_not_above_max(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def check_device(self, device: str, field: str, scorer: str = "scorer") -> None:
        """Raises ValueError where a scorer's device does not fit.

        field, scorer: what the config calls this pool, and the scorer.
        """
        if self.num_gpus and device in ("cpu", "mps"):
            raise ValueError(
                f"{field}.num_gpus {self.num_gpus:g} holds GPUs that {scorer}.device {device} leaves idle"
            )
        if not self.num_gpus and device.startswith("cuda"):
            raise ValueError(f"{scorer}.device {device} needs {field} that hold a GPU: set {field}.num_gpus")
        if device.startswith("cuda:"):
            raise ValueError(
                f"{scorer}.device {device}: Ray deals the GPUs out to the {field}; write cuda or auto"
            )

    def place(self, scorer: ScorerConfig) -> ScorerConfig:
        """The scorer on the device that this pool holds: `auto` is no GPU that Ray has not given."""
        if scorer.device != "auto":
            return scorer
        return scorer.model_copy(update={"device": "cuda" if self.num_gpus else "cpu"})


class ActorsConfig(Placement):
    """The offline job's pool: the actors that score."""

    min: PositiveInt = 1
    """Actors to begin with, and to keep."""
    wait_s: float = Field(default=900, ge=0)
    """How long a cluster at RAY_ADDRESS may take to grow until it can hold one actor."""


class JobActors(ActorsConfig):
    """A pool of actors that score or embed."""

    price_per_hour: float | None = Field(default=None, gt=0)
    """What one actor costs an hour, in any currency: its share of a machine. --dry-run takes it, and so
    does the summary of a reranking."""
