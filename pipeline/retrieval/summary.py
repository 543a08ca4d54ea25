"""What a first stage tells when it has ended."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict, Field

from pipeline.job_summary import JobSummary, rejected_lines
from pipeline.scoring.truncation import Lengths


class DenseSummary(BaseModel):
    """What a dense source embedded. Texts whose embedding `reuse` had are not looked at."""

    model_config = ConfigDict(frozen=True)

    passages_embedded: int
    passages_cut: int
    """Of these, those that are longer than the model reads."""
    queries_embedded: int
    queries_cut: int
    lengths: Lengths | None = None
    """To which they were cut; None where none was."""

    def lines(self, source: str) -> Iterator[str]:
        lengths = self.lengths
        if lengths is None:
            return
        cut = [
            f"{number} of {embedded} embedded {texts}"
            for texts, number, embedded in (
                ("passages", self.passages_cut, self.passages_embedded),
                ("queries", self.queries_cut, self.queries_embedded),
            )
            if number
        ]
        ways = ["scorer.long_passages"] if self.passages_cut else []
        ways += ["a larger length"] if lengths.may_grow else []
        way_out = f"; {' or '.join(ways)} reads more" if ways else ""
        yield f"{' and '.join(cut)} were cut at {lengths.with_positions} (source {source}){way_out}"


class Summary(JobSummary):
    """What became of passages and queries: of both, what was read = what was used + all `rejected`."""

    output: str
    passages: int
    """Searched."""
    queries: int
    """Searched for: those with candidates + `unmatched`."""
    unmatched: int
    """Queries for which no source found a passage."""
    empty_passages: int = 0
    """Passages whose text is empty, and their title too: of those read, before an id that comes again is left
    out. No word finds them, an embedding may."""
    empty_queries: int = 0
    """Likewise."""
    candidates: int
    embedded: int
    """Texts of passages and queries, summed over the dense sources."""
    reused: int
    """Texts whose embedding was taken from an earlier first stage."""
    tokens: int
    """Real tokens that went through the models."""
    dense: dict[str, DenseSummary] = Field(default_factory=dict)
    """By dense source."""
    rejected: dict[str, int]
    files: int
    wall_s: float

    def lines(self) -> Iterator[str]:
        yield (
            f"{self.candidates} candidates of {self.queries - self.unmatched} queries found among"
            f" {self.passages} passages in {self.wall_s:.1f} s: "
            + (f"{self.files} files in {self.output}/candidates" if self.files else "no table to rerank")
        )
        if self.embedded or self.reused:
            yield (
                f"{self.embedded} texts embedded, {self.reused} taken from the earlier first stage;"
                f" {self.output}/embeddings"
            )
        for source, counts in self.dense.items():
            yield from counts.lines(source)
        for texts, number in (("passages", self.empty_passages), ("queries", self.empty_queries)):
            if number:
                yield f"{number} {texts} read have an empty text: no word finds them, an embedding may"
        if self.unmatched:
            yield f"{self.unmatched} queries match no passage, see {self.output}/unmatched"
        yield from rejected_lines(self.output, self.rejected)
