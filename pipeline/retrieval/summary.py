"""What a first stage tells when it has ended."""

from pydantic import BaseModel, ConfigDict, Field

from pipeline.tables.schema import REASONS


class Summary(BaseModel):
    """What became of passages and queries: of both, what was read = what was used + all `rejected`."""

    model_config = ConfigDict(frozen=True)

    output: str
    passages: int
    """Searched."""
    queries: int
    """Searched for: those with candidates + `unmatched`."""
    unmatched: int
    """Queries for which no source found a passage."""
    candidates: int
    embedded: int
    """Texts of passages and queries, summed over the dense sources."""
    reused: int
    """Texts whose embedding was taken from an earlier first stage."""
    tokens: int
    """Real tokens that went through the models."""
    rejected: dict[str, int]
    files: int
    wall_s: float
    finished_before: str | None = Field(default=None, exclude=True)
    """When an earlier start finished all, so that this one had nothing to do. Not in summary.json."""

    def as_text(self) -> str:
        lines = []
        if self.finished_before is not None:
            lines.append(f"Finished before, at {self.finished_before}; nothing was done now.")
        lines.append(
            f"{self.candidates} candidates of {self.queries - self.unmatched} queries found among"
            f" {self.passages} passages in {self.wall_s:.1f} s: {self.files} files in"
            f" {self.output}/candidates"
        )
        if self.embedded or self.reused:
            lines.append(
                f"{self.embedded} texts embedded, {self.reused} taken from the earlier first stage;"
                f" {self.output}/embeddings"
            )
        if self.unmatched:
            lines.append(f"{self.unmatched} queries match no passage, see {self.output}/unmatched")
        if self.rejected:
            lines.append(f"{sum(self.rejected.values())} rows rejected, see {self.output}/rejects:")
            lines += [f"  {count} {reason}: {REASONS[reason]}" for reason, count in self.rejected.items()]
        return "\n".join(lines)
