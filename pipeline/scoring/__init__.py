"""Models to scores. Knows no Ray and no storage: `Scorer` runs on a laptop, imported alone."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.scoring.config import Limits, LongPassages, Quantization, ScorerConfig

if TYPE_CHECKING:
    from pipeline.scoring.results import RankedPassage
    from pipeline.scoring.scorer import Scorer

__all__ = ["Limits", "LongPassages", "Quantization", "RankedPassage", "Scorer", "ScorerConfig"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for: whoever wants a config waits for no torch."""
    if name in ("RankedPassage", "Scorer"):
        return getattr(import_module("pipeline.scoring.scorer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
