"""What a first stage tells when it has ended."""

from collections.abc import Iterator

from pipeline.job_summary import JobSummary, rejected_lines


class Summary(JobSummary):
    """What became of passages and queries: of both, what was read = what was used + all `rejected`."""

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

    def lines(self) -> Iterator[str]:
        yield (
            f"{self.candidates} candidates of {self.queries - self.unmatched} queries found among"
            f" {self.passages} passages in {self.wall_s:.1f} s: {self.files} files in"
            f" {self.output}/candidates"
        )
        if self.embedded or self.reused:
            yield (
                f"{self.embedded} texts embedded, {self.reused} taken from the earlier first stage;"
                f" {self.output}/embeddings"
            )
        if self.unmatched:
            yield f"{self.unmatched} queries match no passage, see {self.output}/unmatched"
        yield from rejected_lines(self.output, self.rejected)
