"""Check an endpoint's config before it is deployed: `python -m serve.check configs/serve/rerank.yaml`.

Takes what `serve deploy` takes, or a RayService manifest of KubeRay. It makes the checks that the cluster
makes at a deploy, so a model that is a folder must be here too. It says what it can't know: API keys that lie
on the cluster alone, models of a hub, which the replicas check that load them, and whether the cluster has
room for GPUs. It also says if something listens on the port here. Exit status: 0; 2 for a mistake.
"""

import argparse
import errno
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.schema import HTTPOptionsSchema, ServeApplicationSchema, ServeDeploySchema

from pipeline.config_problems import field_of, reason_of
from pipeline.errors import ConfigError, RayrankError
from pipeline.plain_file import open_plain
from pipeline.standard_streams import show, tell
from serve.app import build_app
from serve.arguments import mistakes_in_keys, mistakes_in_models, read_arguments
from serve.config import ApiConfig, ModelConfig, is_of_a_hub
from serve.room import asked

_KEYS_THERE = "the cluster needs it, with lines of name:key, a key of at least 16 characters"
_LARGEST_PORT = 65_535
_LONGER_S = 5
"""By so much Serve's limit is longer than the API's in what this project ships."""
_SECRET = {"runtime_env", "ssl_keyfile_password"}
"""Fields of Serve whose values are told nowhere."""
_OF_A_JOB = {"input", "output", "scorer"}
_BUILT_BY = f"{build_app.__module__}:{build_app.__name__}"


class _Application(NamedTuple):
    """One of this project, as far as it can be read."""

    name: str
    args: dict[str, Any]
    runtime_env: dict[str, Any]


class _Config(NamedTuple):
    """What the file says, as far as it can be read."""

    applications: list[_Application]
    """Those of this project."""
    http: HTTPOptionsSchema | None
    """None: there are mistakes in Serve's own fields."""
    is_manifest: bool
    """Of KubeRay: the endpoint won't be on this machine."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serve.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a Serve config, or a RayService manifest")
    options = parser.parse_args(arguments)
    try:
        show(_checked(options.file))
    except RayrankError as error:
        mistakes = "\n".join(f"{options.file}: {line}" for line in str(error).splitlines())
        tell(f"error: {mistakes}")
        return 2
    return 0


def _checked(file: Path) -> str:
    """What is told of a file without a mistake. Raises ConfigError, with a line a mistake."""
    config, mistakes = _read(file)
    lines = []
    for application in config.applications:
        given = read_arguments(application.args)
        variables = application.runtime_env.get("env_vars") or {}
        if not _are_texts(variables):  # Ray would refuse them
            mistakes.append("runtime_env.env_vars: needs {NAME: text}; put numbers in quotes")
            variables = {}
        in_keys, not_known = _keys_checked(given.api, os.environ | variables)
        mistakes += [*given.mistakes, *mistakes_in_models(given.models), *in_keys]
        mistakes += _mistakes_in_timeouts(config.http, given.api)
        lines.append(f"{application.name}: no mistake found; models {', '.join(given.models)}")
        lines += [f"not checked: {what}" for what in [*not_known, *_not_known(given.models)]]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    if config.http is not None and not config.is_manifest and _is_taken(config.http):
        lines.append(
            f"http_options.port: something listens on {config.http.host}:{config.http.port} here. If it is"
            " not the endpoint that this config changes, stop it, or set another port"
        )
    return "\n".join(lines)


def _mistakes_in_timeouts(http: HTTPOptionsSchema | None, api: ApiConfig | None) -> Iterator[str]:
    """Null, Serve's default, is no limit."""
    limit_s = http.request_timeout_s if http is not None else None
    if api is not None and limit_s is not None and limit_s <= api.timeout_s:
        yield (
            f"http_options.request_timeout_s: {limit_s:g} ends requests before api.timeout_s does,"
            f" {api.timeout_s:g}: set {api.timeout_s + _LONGER_S:g}, or a lower api.timeout_s"
        )


def _is_taken(http: HTTPOptionsSchema) -> bool:
    """Whether a socket of this machine has the port. Not known of an address that it does not have."""
    try:
        family, kind, *_, address = socket.getaddrinfo(http.host, http.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the endpoint does
            free.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _are_texts(variables: Any) -> bool:
    return isinstance(variables, dict) and all(isinstance(value, str) for value in variables.values())


def _keys_checked(api: ApiConfig | None, environment: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Mistakes, and what can't be known here.

    environment: of the application's processes, as far as it is known.
    """
    keys = "none" if api is None else api.keys
    if keys != "none" and keys.env is not None and keys.env not in environment:
        return [], [f"args.api.keys.env: {keys.env} is not set here; {_KEYS_THERE}"]
    if keys != "none" and keys.file is not None and not Path(keys.file).exists():
        return [], [f"args.api.keys.file: {keys.file} is not here; {_KEYS_THERE}"]
    return list(mistakes_in_keys(api, environment)), []


def _not_known(models: Mapping[str, ModelConfig]) -> Iterator[str]:
    """What the cluster alone can tell of models without a mistake."""
    singles = {name: list(model.singles(name).values()) for name, model in models.items()}
    for name, own in singles.items():
        for single in own:
            if is_of_a_hub(single.placed_scorer):
                yield f"args.models.{name}: {single.placed_scorer.model} is for the replicas to load"
    sizes = {asked(single.replicas) for own in singles.values() for single in own if single.replicas.num_gpus}
    for size in sorted(sizes):
        yield f"whether the cluster has room for {size}"


def _read(file: Path) -> tuple[_Config, list[str]]:
    """The config, and what is wrong around its applications. Raises ConfigError for what is no config."""
    tree = _parsed(file)
    if is_manifest := tree.get("kind") == "RayService":
        tree = _mapping(_config_of(tree), "spec.serveConfigV2")
    if "applications" not in tree and not _OF_A_JOB.isdisjoint(tree):
        raise ConfigError(
            "this is a job's config, for a command such as `python -m pipeline.rerank --config`; the"
            " endpoint's has `applications`: see configs/serve/rerank.yaml"
        )
    mistakes = list(_unknown_names(tree))
    http = None
    try:
        http = ServeDeploySchema.model_validate(tree).http_options
    except ValidationError as error:
        mistakes += [f"{field_of(each)}: {_reason(each)}" for each in error.errors()]
    else:
        if not 1 <= http.port <= _LARGEST_PORT:
            mistakes.append(f"http_options.port: needs 1 to {_LARGEST_PORT}, not {http.port}")
    listed = tree.get("applications")
    ours = [
        one
        for one in (listed if isinstance(listed, list) else ())
        if isinstance(one, dict) and one.get("import_path") == _BUILT_BY
    ]
    if isinstance(listed, list) and not ours:
        mistakes.append(f"applications: none has import_path: {_BUILT_BY}")
    applications = [_application(one) for one in ours if isinstance(one.get("args", {}), dict)]
    return _Config(applications, http, is_manifest), mistakes


def _config_of(manifest: dict[str, Any]) -> str:
    """The Serve config in a RayService, as text. Raises ConfigError."""
    spec = manifest.get("spec")
    text = spec.get("serveConfigV2") if isinstance(spec, dict) else None
    if not isinstance(text, str):
        found = "a mapping" if isinstance(text, dict) else "none" if text is None else f"{text!r:.40}"
        raise ConfigError(
            f"spec.serveConfigV2: needs the config as text, found {found}; write `serveConfigV2: |` and the"
            " config indented below it"
        )
    return text


def _application(fields: dict[str, Any]) -> _Application:
    runtime_env = fields.get("runtime_env")
    return _Application(
        str(fields.get("name", "default")),
        fields.get("args", {}),
        runtime_env if isinstance(runtime_env, dict) else {},
    )


def _unknown_names(tree: dict[str, Any]) -> Iterator[str]:
    """Fields that Serve does not have. It passes over them."""
    applications = tree.get("applications")
    places: list[tuple[str, type[BaseModel], Any]] = [
        ("", ServeDeploySchema, tree),
        ("http_options.", HTTPOptionsSchema, tree.get("http_options")),
    ]
    for number, one in enumerate(applications if isinstance(applications, list) else ()):
        places.append((f"applications.{number}.", ServeApplicationSchema, one))
    for under, schema, fields in places:
        for name in fields if isinstance(fields, dict) else ():
            if name not in schema.model_fields:
                problem = {"type": "extra_forbidden", "loc": (name,)}
                yield f"{under}{name}: {reason_of(schema, problem, under)}"


def _reason(problem: Any) -> str:
    if not _SECRET.isdisjoint(problem["loc"]):
        problem = problem | {"input": {}}  # of a mapping no value is told
    return reason_of(ServeDeploySchema, problem)


def _parsed(file: Path) -> dict[str, Any]:
    try:
        with open_plain(file, piped=True) as stream:
            return _mapping(stream.read().decode("utf-8-sig"), "the file")
    except OSError as error:
        raise ConfigError(f"{error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text") from error


def _mapping(text: str, what: str) -> dict[str, Any]:
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.ScalarEvent) and not _is_text(event.value):
                at: Any = event.start_mark
                raise ConfigError(f"{what}: line {at.line + 1}: a lone surrogate is no text")
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        at = getattr(error, "problem_mark", None)  # its text shows lines of the file, which may hold secrets
        where = "" if at is None else f"line {at.line + 1}, column {at.column + 1}: "
        reason = getattr(error, "problem", None) or "it can't be read"
        raise ConfigError(f"{what}: not YAML: {where}{reason}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{what}: needs the fields of a Serve config; see configs/serve/rerank.yaml")
    return tree


def _is_text(value: str) -> bool:
    return value.encode(errors="replace").decode() == value


if __name__ == "__main__":
    sys.exit(main())
