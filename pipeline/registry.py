"""What is pluggable: families, formats, engines, dialects. Each is a module of a package that holds nothing
else; a new one is one new file there, and no list names it.
"""

import pkgutil
from importlib import import_module
from types import ModuleType


def names_in(package: ModuleType) -> tuple[str, ...]:
    """The names of a package's modules, in alphabetical order. Imports none of them."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(package.__path__)))


def load(package: ModuleType, name: str) -> ModuleType:
    """The module of that name, one of `names_in`."""
    assert name in names_in(package), name
    return import_module(f"{package.__name__}.{name}")
