"""The application as `serve deploy` gets it: the `args` of configs/serve/rerank.yaml."""

import re
from hashlib import sha256
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from pipeline.levels import FuseConfig, check_levels
from pipeline.placement import Placement
from pipeline.scoring import ScorerConfig

API_DEPLOYMENT = "api"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class ReplicasConfig(Placement):
    """The replicas of one model, each on devices of its own."""

    min: int = Field(default=1, ge=0)
    """0: no replica while no request comes; the first request then waits until one has loaded."""
    target_wait_s: PositiveFloat = 0.5
    """Replicas come and go so that the tokens waiting at each are what it scores in this time."""
    upscale_delay_s: float = Field(default=5, ge=0)
    """Seconds for which more replicas must be wanted before they are started."""
    downscale_delay_s: float = Field(default=300, ge=0)
    """Seconds for which fewer replicas must be wanted before some are stopped."""
    max_surge_percent: int = Field(default=0, ge=0, le=100)
    """Of a rolling update: so many new replicas load before old ones go, on devices that must be free.

    0: old ones go first. Of one replica, requests wait while the new one loads.
    """


class LevelConfig(_Strict):
    """One scorer of a cascade, as in a job's config, but for what is of machines or of a whole run."""

    NAMES_ELSEWHERE: ClassVar[dict[str, str]] = {
        "actors": "replicas",
        "drop": "top_n of a request: what a level cut stands below, in its order",
    }

    scorer: ScorerConfig
    keep: PositiveInt | None = None
    """How many passages of each query go on to the next level. The last level needs none: requests say how
    many they want."""
    fuse: FuseConfig | None = None
    """Rank by a mix of this level's scores and those of the levels before. Null: by this level's alone.
    `first_stage` is of jobs: a request has no such scores."""
    replicas: ReplicasConfig | None = None
    """Null: as the model's `replicas`. Each level has replicas of its own."""


class ModelConfig(_Strict):
    """One model that is served."""

    NAMES_ELSEWHERE: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("model_id", "model", "model_name_or_path"), "scorer.model"),
        "revision": "scorer.revision",
        "dtype": "scorer.dtype",
        "max_batch_tokens": "scorer.max_batch_tokens",
        "served_model_name": "the model's name, under which its config stands in `models`",
        "auto_truncate": "scorer.truncation: error for false; for true the default",
    }

    scorer: ScorerConfig | None = None
    """What scores every passage: this, or `levels`."""
    levels: tuple[LevelConfig, ...] | None = Field(default=None, min_length=1, strict=False)
    """Scorers one after another, each for the best passages of the one before: a cascade."""
    aliases: tuple[str, ...] = Field(default=(), strict=False)
    """Other names that requests may give: `[rerank-v3.5]`, so that an application changes its URL alone."""
    replicas: ReplicasConfig = ReplicasConfig()
    max_wait_s: PositiveFloat = 2
    """Seconds that a request may wait for the device, by an estimate when it comes. One that would wait
    longer is refused with 429. The answer takes longer: the device scores it in turns with others."""

    @model_validator(mode="after")
    def _has_one_way_to_score(self) -> Self:
        if (self.scorer is None) == (self.levels is None):
            given = "give one of them" if self.scorer is None else "a cascade has its scorers in its levels"
            raise ValueError(f"scorer (one for all passages) or levels (a cascade): {given}")
        check_levels(self.levels or ())
        for number, level in enumerate(self.levels or ()):
            if level.fuse is not None and level.fuse.first_stage is not None:
                raise ValueError(
                    f"levels.{number}.fuse.first_stage: a request has no scores of a first stage; leave it"
                    " out, and mix them with the answer's scores in the application"
                )
        if self.levels is not None and self.levels[-1].keep is not None:
            last = len(self.levels) - 1
            raise ValueError(f"levels.{last}.keep: leave it out; a request says how many passages it wants")
        return self

    @model_validator(mode="after")
    def _devices_fit_the_replicas(self) -> Self:
        for number, level in enumerate(self.levels or ()):
            field = "replicas" if level.replicas is None else f"levels.{number}.replicas"
            replicas = level.replicas or self.replicas
            replicas.check_device(level.scorer.device, field, f"levels.{number}.scorer")
        if self.scorer is not None:
            self.replicas.check_device(self.scorer.device, "replicas")
        return self

    @property
    def placed_scorer(self) -> ScorerConfig:
        """The scorer on the device that its replicas hold; not of a cascade."""
        assert self.scorer is not None
        return self.replicas.place(self.scorer)

    @property
    def cutoff_layers(self) -> tuple[int, ...]:
        """Those that a request may choose from: of a cascade none."""
        return () if self.scorer is None else self.scorer.cutoff_layers or ()

    def singles(self, name: str) -> "dict[str, ModelConfig]":
        """What has replicas of its own, by name: this model, or each level of the cascade."""
        if self.levels is None:
            return {name: self}
        return {
            level_name(name, number): ModelConfig(
                scorer=level.scorer, replicas=level.replicas or self.replicas, max_wait_s=self.max_wait_s
            )
            for number, level in enumerate(self.levels)
        }


def level_name(model: str, number: int) -> str:
    """Of a level's replicas, in metrics and logs."""
    return f"{model}/levels.{number}"


class KeysConfig(_Strict):
    """Where the API keys are: one place of the two."""

    env: str | None = None
    """A variable of the API's processes: `name:key` entries, with commas or line breaks between them."""
    file: str | None = None
    """A file of such lines. Read again when it changes."""

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give env or file: where the API keys are")
        place = self.env or self.file or ""
        if ":" in place and "/" not in place:
            raise ValueError("this is a key, and not where the keys are")
        return self


class RateLimits(_Strict):
    """Of one key, over any minute, at each replica of the API for itself: n of them, n times as much.

    Null: none. A request of more pairs than a minute's is refused as one of too many passages is: with 413,
    or 400 in Cohere's dialect.
    """

    requests_per_minute: PositiveInt | None = None
    """Requests, also those that fail. Those beyond get 429 and Retry-After before their body is read."""
    pairs_per_minute: PositiveInt | None = None
    """Pairs, each a query and a passage, also of requests that a full model refuses. Requests beyond get 429
    and Retry-After."""


class ApiConfig(_Strict):
    """The HTTP side. It holds no model."""

    NAMES_ELSEWHERE: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("max_client_batch_size", "max_batch_requests"), "max_passages, of one request"),
        "max_concurrent_requests": "max_requests, which counts requests",
        "payload_limit": "max_body_bytes",
        "api_key": "keys",
        **dict.fromkeys(("cors_allow_origin", "cors_allow_origins"), "cors_origins"),
        **dict.fromkeys(("hostname", "host", "port"), "host and port of the Serve config's http_options"),
        "served_model_name": "the model's name in `models`",
    }

    keys: KeysConfig | Literal["none"]
    """`none`: no keys are asked for, and only clients on this machine are served, unless `anyone` says so."""
    anyone: bool = False
    """With `keys: none`: serve clients on other machines too."""
    limits: RateLimits = RateLimits()
    limits_of: dict[str, RateLimits] = {}
    """By the key's name, in place of `limits`."""
    replicas: PositiveInt = 1
    """Processes that speak HTTP. 2 in production: while one that died is replaced, the other answers."""
    num_cpus: float = Field(default=0, ge=0)
    """CPUs that each of these processes takes of the cluster. 0: it takes none."""
    max_passages: PositiveInt = 1000
    """Passages of one request. One with more is refused."""
    max_text_characters: PositiveInt = 500_000
    """Characters of one query or passage. A request with a longer one is refused: a text is tokenized in one
    go, and others wait meanwhile."""
    max_body_bytes: PositiveInt = 8_000_000
    """Bytes of one request's body. A larger one is refused."""
    max_requests: PositiveInt = 2000
    """At once in each of these processes, those included whose body is still on its way. More get 429."""
    max_buffered_bytes: PositiveInt = 256_000_000
    """The bodies of all these requests together, and what objects in them take. One without room gets 429."""
    timeout_s: PositiveFloat = 60
    """Of a request whose X-Request-Timeout-Seconds asks for no less, from its head to its answer."""
    cors_origins: tuple[str, ...] = Field(default=(), strict=False)
    """Pages of these origins may call the API from a browser. None by default."""
    log_texts: bool = False
    """Write queries and passages to the log."""

    @model_validator(mode="after")
    def _anyone_needs_no_keys(self) -> Self:
        if self.anyone and self.keys != "none":
            raise ValueError("anyone goes with `keys: none`; with keys, whoever has one is served")
        return self


class ServeConfig(_Strict):
    """The models by the names that requests give; the first is the default."""

    models: dict[str, ModelConfig] = Field(min_length=1)
    """By the names that requests give; the first is the default."""
    api: ApiConfig

    @field_validator("models")
    @classmethod
    def _names_have_no_other_meaning(cls, models: dict[str, ModelConfig]) -> dict[str, ModelConfig]:
        names = [name for model, config in models.items() for name in (model, *config.aliases)]
        double = [repr(name) for name in dict.fromkeys(names) if names.count(name) > 1]
        if double:
            stand = "stands" if len(double) == 1 else "stand"
            raise ValueError(f"{', '.join(double)} {stand} there twice: a name or alias is of one model")
        for name in names:
            if name in ("", "default"):
                raise ValueError(f"{name!r} can't be a model's name: requests mean the first model by it")
            if re.search(r"/levels\.\d+$", name):
                raise ValueError(f"{name!r} can't be a model's name: levels of cascades are called so")
        return models


def deployment_name(model: str) -> str:
    """The deployment of a model: of the same name where that is plain, else of one made of it.

    Serve puts the name into those of actors and log files, parts it at #, and makes it a label of its own
    metrics, which is ASCII.
    """
    if _PLAIN_NAME.fullmatch(model) and model != API_DEPLOYMENT:
        return model
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", model)[:64]
    return f"{plain}-{sha256(model.encode()).hexdigest()[:8]}"


def is_of_a_hub(scorer: ScorerConfig) -> bool:
    """Whether its checkpoint is for the replicas to download."""
    return not (scorer.model.startswith((".", "/", "~", "package:")) or Path(scorer.model).is_dir())
