"""Check an endpoint's config before it is deployed: `python -m serve.check configs/serve/rerank.yaml`.

Takes what `serve deploy` takes, or a RayService manifest of KubeRay. It makes the checks that the cluster
makes at a deploy, so a model that is a folder must be here too. API keys are left to the cluster, and a hub's
models to the replicas that load them. Exit status: 0; 2 for a mistake.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from pipeline.config_problems import field_of, reason_of
from pipeline.errors import ConfigError, RayrankError
from serve.app import build_app, check_models, read_arguments

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
        for name, told in _applications(options.file):
            config = read_arguments(told)
            check_models(config)
            print(f"{name}: no mistake found; models {', '.join(config.models)}")
    except RayrankError as error:
        print(f"error: {options.file}: {error}", file=sys.stderr)
        return 2
    return 0


def _applications(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and args of each application of this project. Raises ConfigError."""
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
    for application in ours:
        yield application.name, application.args


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
        raise ConfigError(f"{what}: not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{what}: needs the fields of a Serve config; see configs/serve/rerank.yaml")
    return tree


if __name__ == "__main__":
    sys.exit(main())
