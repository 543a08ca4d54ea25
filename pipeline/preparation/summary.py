"""What a preparation tells when it has ended."""

from collections.abc import Iterator

from pipeline.job_summary import JobSummary, rejected_lines


class Summary(JobSummary):
    """What became of the candidates: `candidates` + `rejected_texts` = `written` + all `rejected`."""

    output: str
    candidates: int
    written: int
    queries: int
    rejected: dict[str, int]
    query_texts: int
    passage_texts: int
    """Rows of the tables of texts, used or not."""
    rejected_texts: int = 0
    """Rows of these tables that can't be used."""
    files: int
    wall_s: float

    def lines(self) -> Iterator[str]:
        yield (
            f"{self.written} of {self.candidates} candidates of {self.queries} queries written"
            f" in {self.wall_s:.1f} s: {self.files} files in {self.output}/candidates"
        )
        yield from rejected_lines(self.output, self.rejected)
