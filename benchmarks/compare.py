"""Did a ratio of `make bench` fall?

    python benchmarks/compare.py OLD.json NEW.json [--allowed 0.1]

Exit status 1 where one is missing, or more than a tenth under the old one and under all rounds of the old
run: of two runs of the same code one is often a tenth under the other, since machines vary. 2 where the files
can't be compared: one can't be read, or they are of other configs. Ratios of other machines and versions are
compared as well, and told: chips differ in what they allow.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class UnfitError(Exception):
    """These files can't be compared."""


def read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text())
        ratios, rounds = found["ratios"], found["rounds"]
        numbers = [*ratios.values(), *(ratio for name in ratios for ratio in rounds[name])]
        fit = bool(ratios) and all(math.isfinite(number) and number > 0 for number in numbers)
        fit = (
            fit and all(rounds[name] for name in ratios) and {"machine", "versions", "config"} <= found.keys()
        )
    except OSError as error:
        raise UnfitError(f"{file}: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnfitError(f"{file}: is no result of `make bench`: {type(error).__name__}: {error}") from error
    if not fit:
        raise UnfitError(
            f"{file}: is no result of `make bench`: a ratio or a field lacks, or is no number above 0"
        )
    return found


def fallen(old: dict[str, Any], new: dict[str, Any], allowed: float) -> Iterator[str]:
    """What is worse than it may be, a line each."""
    for name, before in old["ratios"].items():
        after = new["ratios"].get(name)
        if after is None:
            yield f"{name}: was {before:.3f}, and was not measured"
        elif after < min(before * (1 - allowed), *old["rounds"][name]):
            yield f"{name}: was {before:.3f}, is {after:.3f}, {1 - after / before:.0%} less"


def changed(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What else than the code differs."""
    if old["machine"] != new["machine"]:
        yield f"on another machine: {new['machine']}, was {old['machine']}"
    for name in sorted({**old["versions"], **new["versions"]}):
        before, after = (found["versions"].get(name, "none") for found in (old, new))
        if before != after:
            yield f"another version: {name} {after}, was {before}"


def share(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1:
        raise ValueError
    return number


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument(
        "--allowed", type=share, default=0.1, help="share that a ratio may lose to noise, under 1"
    )
    options = parser.parse_args(arguments)
    try:
        old, new = read(options.old), read(options.new)
    except UnfitError as error:
        parser.error(str(error))
    if old["config"] != new["config"]:
        parser.error(f"{options.new}: is of another config: {new['config']}, was {old['config']}")
    for line in changed(old, new):
        print(line)
    worse = [*fallen(old, new, options.allowed)]
    for name, ratio in new["ratios"].items():
        print(f"{name:32}{old['ratios'].get(name, float('nan')):8.3f} -> {ratio:.3f}")
    for line in worse:
        print(f"SLOWER  {line}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
