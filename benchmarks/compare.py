"""Did a ratio of `make bench` fall?

    python benchmarks/compare.py OLD.json NEW.json [--allowed 0.1]

Exit status 1 where one is more than a tenth under the old one, or missing. Ratios of other machines are
compared as well, and told: chips differ in what they allow.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def fallen(old: dict[str, Any], new: dict[str, Any], allowed: float) -> Iterator[str]:
    """What is worse than it may be, a line each."""
    for name, before in old["ratios"].items():
        after = new["ratios"].get(name)
        if after is None:
            yield f"{name}: was {before:.3f}, and was not measured"
        elif after < before * (1 - allowed):
            yield f"{name}: was {before:.3f}, is {after:.3f}, {1 - after / before:.0%} less"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--allowed", type=float, default=0.1, help="share that a ratio may lose to noise")
    options = parser.parse_args(arguments)
    old, new = (json.loads(file.read_text()) for file in (options.old, options.new))
    if old["machine"] != new["machine"]:
        print(f"on another machine: {new['machine']}, was {old['machine']}")
    worse = [*fallen(old, new, options.allowed)]
    for name, ratio in new["ratios"].items():
        print(f"{name:32}{old['ratios'].get(name, float('nan')):8.3f} -> {ratio:.3f}")
    for line in worse:
        print(f"SLOWER  {line}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
