"""Models to scores. Knows no Ray and no storage: `Scorer` runs on a laptop, imported alone."""

from pipeline.scoring.config import Limits, LongPassages, ScorerConfig
from pipeline.scoring.scorer import RankedPassage, Scorer

__all__ = ["Limits", "LongPassages", "RankedPassage", "Scorer", "ScorerConfig"]
