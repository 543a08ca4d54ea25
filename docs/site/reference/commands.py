"""Every command and its arguments."""

import argparse
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn
from unittest.mock import patch

import pipeline
from docs.site.reference.markdown import code, page, prose, table

_ABOUT = """Each is a module: `python -m pipeline.rerank --config FILE`; one is the endpoint's,
`python -m serve.check FILE`. A mistake of yours ends a command with status 2 and one message, which
names the file, field or row and the way out. What may pass by itself (no room on the cluster, a store that
is down) ends it with status 75: [try the same command later](../jobs.md#exit-status)."""


def _commands() -> Iterator[ModuleType]:
    """Those of the pipeline in the order of their names, and the endpoint's."""
    for module in pkgutil.iter_modules(pipeline.__path__, "pipeline."):
        if not module.ispkg:
            loaded = import_module(module.name)
            if hasattr(loaded, "main"):
                yield loaded
    yield import_module("serve.check")


def _parser(command: ModuleType) -> argparse.ArgumentParser:
    """What the command makes and is about to parse with."""
    about_to_parse: list[argparse.ArgumentParser] = []

    def stop(self: argparse.ArgumentParser, *_: Any) -> NoReturn:
        about_to_parse.append(self)
        raise SystemExit

    with patch.object(argparse.ArgumentParser, "parse_args", stop), suppress(SystemExit):
        command.main([])
    (parser,) = about_to_parse
    return parser


def _option(action: argparse.Action) -> str:
    name = action.option_strings[-1] if action.option_strings else action.dest
    if action.nargs == 0:
        return code(name)
    value = action.metavar or action.dest.upper()
    return code(f"{name} {value}{' ...' if action.nargs == '+' else ''}")


def _command(command: ModuleType) -> str:
    parser = _parser(command)
    options = [action for action in parser._actions if action.dest != "help"]
    rows = [
        (_option(option), "required" if option.required else "", prose(option.help or ""))
        for option in options
    ]
    about = "\n\n".join(prose(paragraph) for paragraph in (parser.description or "").split("\n\n"))
    name = command.__name__.removeprefix("pipeline.")
    return f"## {name}\n\n{about}\n\n{table(('argument', '', 'meaning'), rows)}"


def made() -> str:
    return page("Commands", _ABOUT, map(_command, _commands()))
