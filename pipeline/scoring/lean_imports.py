"""Loading networks with transformers and torch, without what no scorer uses.

With its first network transformers 5.24 imports torch's compiler, its distributed tensors and scipy; torch
2.13 imports sympy for tensors that have no memory yet. That was half of the 9 CPU seconds that a process took
to its first score. It serves torch.compile, networks split over devices, and the losses of object detection.
Here it is left out, and comes when something else asks for it. No operation of a network changes.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

import torch
from transformers import utils
from transformers.utils import import_utils

_COMPILER = "torch._dynamo"
_ITEMS = f"{_COMPILER}._trace_wrapped_higher_order_op"
_SYMBOLS = "torch.fx.experimental.symbolic_shapes"
_LEFT_OUT = ("is_scipy_available", "is_torch_distributed_available", "is_torch_flex_attn_available")
"""What transformers asks before it imports them. A module that was told no keeps to that."""
_LOCK = RLock()
_STRUCTURE = "create_import_structure_from_path"
_structure, _normal = getattr(import_utils, _STRUCTURE, None), torch.nn.init.normal_


@contextmanager
def lean_imports() -> Iterator[None]:
    """For processes of ours that load networks to score with: actors, replicas, a job's own.

    It has no effect where the compiler is there already, and leaves alone what a newer transformers or torch
    does not have. A program that makes a Scorer of its own imports as it always did.
    """
    with _LOCK:
        if _COMPILER in sys.modules:
            yield
            return
        for name, stand_in in _STAND_INS.items():
            sys.modules.setdefault(name, stand_in(name))
        changed: list[tuple[ModuleType, str, Any]] = [
            (module, name, _no) for module in (utils, import_utils) for name in _LEFT_OUT
        ]
        changed += [
            (import_utils, _STRUCTURE, _structure_once),
            (torch.nn.init, "normal_", _normal_where_there_is_memory),
        ]
        changed = [each for each in changed if hasattr(*each[:2])]
        before = [(module, name, getattr(module, name)) for module, name, _ in changed]
        try:
            for module, name, value in changed:
                setattr(module, name, value)
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)
            _leave()


def _no() -> bool:
    return False


def _structure_once(place: str | Path) -> Any:
    """Of its 1,600 files, which transformers reads twice: by their folder, and by a file in it."""
    path = Path(place)
    assert _structure is not None
    return _structure(path.parent if path.is_file() else path)


def _normal_where_there_is_memory(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A network is made on the device `meta` first, without memory: weights take its place."""
    return tensor if tensor.is_meta else _normal(tensor, *args, **kwargs)


def _leave() -> None:
    for name in _STAND_INS:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


class _StandIn(ModuleType):
    """Becomes the real module with the first name that it does not have."""

    def __getattr__(self, name: str) -> Any:
        # Whoever looks through all modules asks for __file__; whoever imports one below, for __path__.
        if name.startswith("__") and (name, self.__name__) != ("__path__", _COMPILER):
            raise AttributeError(name)
        _leave()
        return getattr(importlib.import_module(self.__name__), name)


class _Compiler(_StandIn):
    """Decorators that tell the compiler what to leave alone: nothing, where it is not used."""

    @staticmethod
    def disable(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
        return _as_it_is if function is None else function

    @staticmethod
    def assume_constant_result(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    @staticmethod
    def allow_in_graph(function: Callable[..., Any]) -> Callable[..., Any]:
        return function


class _Items(_StandIn):
    """transformers.masking_utils keeps this name for masks of a kind that no family here has."""

    TransformGetItemToIndex = staticmethod(lambda: importlib.import_module(_ITEMS).TransformGetItemToIndex())


class _Symbols(_StandIn):
    """What torch asks of all sizes, for the sake of those that are symbols. Numbers need no sympy."""

    def expect_true(self, condition: Any) -> Any:
        return self._truth("expect_true", condition)

    def guard_or_false(self, condition: Any) -> Any:
        return self._truth("guard_or_false", condition)

    def guard_or_true(self, condition: Any) -> Any:
        return self._truth("guard_or_true", condition)

    def guard_size_oblivious(self, condition: Any) -> Any:
        return self._truth("guard_size_oblivious", condition)

    def is_nested_int(self, size: Any) -> Any:
        return False if type(size) is int else self.__getattr__("is_nested_int")(size)

    def sym_eq(self, one: Any, other: Any) -> Any:
        numbers = all(
            isinstance(shape, tuple) and all(type(size) is int for size in shape) for shape in (one, other)
        )
        return one == other if numbers else self.__getattr__("sym_eq")(one, other)

    def _truth(self, name: str, condition: Any) -> Any:
        return condition if isinstance(condition, bool) else self.__getattr__(name)(condition)


def _as_it_is(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


_STAND_INS = {_COMPILER: _Compiler, _ITEMS: _Items, _SYMBOLS: _Symbols}
