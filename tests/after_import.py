"""Changes for processes of a Ray that are made where a module is imported, and cost the others nothing.

A hook of `ray.init` runs in every process, also in those of Ray Data's own actors, and one that imports torch
takes five seconds of each.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


def after_import(name: str, act: Callable[[], None]) -> None:
    """Call it once the module, which was not imported yet, has been."""
    sys.meta_path.insert(0, _Finder(name, act))


class _Finder(MetaPathFinder):
    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self._name, self._act = name, act

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def and_act(module: ModuleType) -> None:
            execute(module)
            self._act()

        setattr(spec.loader, "exec_module", and_act)  # noqa: B010  (a method of this loader alone)
        return spec
