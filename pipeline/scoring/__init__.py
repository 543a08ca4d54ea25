"""Models to scores. Knows no Ray and no storage: `Scorer` runs on a laptop, imported alone."""

from pipeline.scoring.config import ScorerConfig
from pipeline.scoring.scorer import RankedPassage, Scorer

__all__ = ["RankedPassage", "Scorer", "ScorerConfig"]
