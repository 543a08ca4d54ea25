"""Check an endpoint's config before it is deployed: `python -m serve.check configs/serve/rerank.yaml`.

Takes what `serve deploy` takes, or a RayService manifest of KubeRay. It makes the checks that the cluster
makes at a deploy, so a model that is a folder must be here too. It says what it can't know: API keys that lie
on the cluster alone, and models of a hub, which the replicas check that load them. Exit status: 0; 2 for a
mistake.
"""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from pipeline.config_problems import field_of, reason_of
from pipeline.errors import ConfigError, RayrankError
from serve.app import build_app, mistakes_in_keys, mistakes_in_models, read_arguments
from serve.config import ServeConfig

_KEYS_THERE = "the cluster needs it, with lines of name:key, a key of at least 16 characters"
_BUILT_BY = f"{build_app.__module__}:{build_app.__name__}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m serve.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a Serve config, or a RayService manifest")
    options = parser.parse_args(arguments)
    try:
        for application in _applications(options.file):
            config = read_arguments(application.args)
            not_known = _checked(config, os.environ | application.runtime_env.get("env_vars", {}))
            print(f"{application.name}: no mistake found; models {', '.join(config.models)}")
            for what in not_known:
                print(f"not checked: {what}")
    except RayrankError as error:
        mistakes = "\n".join(f"{options.file}: {line}" for line in str(error).splitlines())
        print(f"error: {mistakes}", file=sys.stderr)
        return 2
    return 0


def _checked(config: ServeConfig, environment: Mapping[str, str]) -> list[str]:
    """What can't be known here. Raises ConfigError, with a line a mistake.

    environment: of the application's processes, as far as it is known.
    """
    # Here and not above: it brings torch.
    from serve.replica import is_of_a_hub  # noqa: PLC0415

    mistakes, not_known = [*mistakes_in_models(config)], []
    keys = config.api.keys
    if keys != "none":
        if keys.env is not None and keys.env not in environment:
            not_known.append(f"args.api.keys.env: {keys.env} is not set here; {_KEYS_THERE}")
        elif keys.file is not None and not Path(keys.file).exists():
            not_known.append(f"args.api.keys.file: {keys.file} is not here; {_KEYS_THERE}")
        else:
            mistakes += mistakes_in_keys(config, environment)
    for name, model in config.models.items():
        scorers = (single.placed_scorer for single in model.singles(name).values())
        not_known += [
            f"args.models.{name}: {scorer.model} is for the replicas to load"
            for scorer in scorers
            if is_of_a_hub(scorer)
        ]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return not_known


def _applications(file: Path) -> list[ServeApplicationSchema]:
    """Those of this project. Raises ConfigError."""
    tree = _parsed(file)
    if tree.get("kind") == "RayService":
        tree = _mapping((tree.get("spec") or {}).get("serveConfigV2") or "", "spec.serveConfigV2")
    try:
        deployed = ServeDeploySchema.model_validate(tree)
    except ValidationError as error:
        mistakes = (f"{field_of(each)}: {reason_of(ServeDeploySchema, each)}" for each in error.errors())
        raise ConfigError("\n".join(mistakes)) from error
    ours = [one for one in deployed.applications if one.import_path == _BUILT_BY]
    if not ours:
        raise ConfigError(f"applications: none has import_path: {_BUILT_BY}")
    return ours


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return _mapping(file.read_text(encoding="utf-8-sig"), "the file")
    except OSError as error:
        raise ConfigError(f"{error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError("not UTF-8 text") from error


def _mapping(text: str, what: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{what}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{what}: needs the fields of a Serve config; see configs/serve/rerank.yaml")
    return tree


if __name__ == "__main__":
    sys.exit(main())
