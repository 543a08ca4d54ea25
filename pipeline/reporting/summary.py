"""What a finished job tells: one JSON file for programs, the same as text for people."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from pipeline.job_summary import JobSummary, rejected_lines
from pipeline.reporting.judged import Judged
from pipeline.reporting.totals import Totals
from pipeline.scoring.truncation import Lengths
from pipeline.tables.output.attempts import MAX_ATTEMPTS, Quarantined
from pipeline.tables.output.markers import Counts, LevelCounts, is_empty
from pipeline.tables.output.statistics import Distribution, RankChanges

if TYPE_CHECKING:  # it loads torch
    from pipeline.scoring import Scorer

FEW_PAIRS = 1000
"""What scored fewer, as a run that reused nearly all, tells little of an actor's speed: the time in which it
warms up weighs too much.
"""
_PACKAGES = ("rayrank", "ray", "torch", "transformers", "tokenizers", "pyarrow")


def caveat(pairs: int, reused: int, copies: int) -> str:
    """What to say behind the speed of an actor that scored what was not reused, where that is little."""
    scored = pairs - reused - copies
    few = reused and scored < FEW_PAIRS
    return f"(by only {scored} pairs, the others reused: too few to tell)" if few else ""


class LevelSummary(LevelCounts):
    """One level of a cascade."""

    model: str
    model_fingerprint: str
    keep: int | None
    """How many candidates of each query went on, or stayed in the run; None: all."""
    scores: dict[str, float]
    """As in the Summary."""
    lengths: Lengths | None = Field(default=None, exclude_if=is_empty)
    """Likewise."""

    @classmethod
    def of(cls, scorer: "Scorer", keep: int | None, counts: LevelCounts, scores: Distribution) -> Self:
        return cls(
            **counts.model_dump(),
            model=scorer.config.model,
            model_fingerprint=scorer.fingerprint,
            keep=keep,
            lengths=scorer.lengths if counts.truncated else None,
            scores=_quantiles(scores),
        )


class Summary(Counts, JobSummary):
    """Counts are of the whole run, however many starts it took; `wall_s` is of the last one."""

    levels: tuple[LevelSummary, ...] = Field(default=(), exclude_if=is_empty)
    """Of a cascade, from the first scorer to the last."""
    fused: dict[str, str] = Field(default={}, exclude_if=is_empty)
    """Of `scorer`, or each of the `levels` that fuses: the mix by which it ranks."""
    output: str
    model: str
    """Of a cascade, all of them, with ` > ` between."""
    dtype: str = Field(default="", exclude_if=is_empty)
    """In which they scored, likewise; what `auto` became. Empty in summaries of before."""
    model_fingerprint: str
    lengths: Lengths | None = Field(default=None, exclude_if=is_empty)
    """To which pairs were cut; None where none was, and of a cascade, whose levels have their own."""
    embeds: bool = Field(default=False, exclude_if=is_empty)
    """Whether the scorer is an embedding model, which reads equal texts of a shard once; not of a cascade."""
    config_fingerprint: str
    shards: int
    shards_done_before: int
    pairs_done_before: int = 0
    """By earlier starts; the last one did the others."""
    top_k: int | None
    files_skipped: int
    reuse: str | None = Field(default=None, exclude_if=is_empty)
    """As the config was given."""
    previous_run: str | None = Field(default=None, exclude_if=is_empty)
    """The run that was found there; without one every pair is scored."""
    quarantined: list[Quarantined]
    """Shards given up, since they killed the processes that worked on them; the run lacks their pairs."""
    padding_share: float
    """Of what went through the model, padding."""
    wall_s: float
    pairs_per_s: float
    """Of this start: its pairs over its wall time, starting Ray and loading the model included."""
    actor_hours: float = 0
    """In which actors had work, start-up and waiting left out. Of the whole run."""
    actor_pairs_per_s: float | None = None
    """Of an actor while it had work, over all starts: pairs that went through the model, by `actor_hours`.
    None where none did, and of a cascade, whose levels differ."""
    cost: float | None = None
    """Of these hours, where `actors.price_per_hour` tells."""
    cost_per_million_pairs: float | None = None
    """Of all pairs of the run, those with the previous run's score and copies too."""
    versions: dict[str, str]
    scores: dict[str, float]
    """Least, largest and quantiles (to within a bin of the distribution) of all scores; {} of none. Of a
    cascade, of the last level's."""
    best_scores: dict[str, float]
    """The same of each query's first rank."""
    rank_changes: dict[str, float]
    """Against the order of the input: the shares of candidates that moved up, down or not at all, the mean
    number of places, and how many of the new top 1 and top 10 stood there before; {} of no candidates."""
    judged: Judged | None = Field(default=None, exclude_if=is_empty)
    """How good the run is, where the config names `qrels`."""
    NOTHING_NEW: ClassVar[str] = "nothing was scored now"

    def lines(self) -> Iterator[str]:
        padding = f", {self.padding_share:.1%} padding" if self._scored else ""
        by, time = self._by(), f"in {self.wall_s:.1f} s ({self.pairs_per_s:.1f} pairs/s with start-up"
        if self.shards_done_before:
            yield f"{self.pairs} pairs of {self.queries} queries{by.rstrip(',')}{padding}"
            yield (
                f"The last start did {self.pairs - self.pairs_done_before} of these pairs {time});"
                f" {self.shards_done_before} of {self.shards} shards were done before"
            )
        else:
            yield f"{self.pairs} pairs of {self.queries} queries{by} {time}{padding})"
        top = f", the top {self.top_k} a query" if self.top_k else ""
        yield f"{self.kept} rows in {self.output}/run{top}"
        yield from self._level_lines()
        yield from self._cost_lines()
        yield from self._training_lines()
        yield from self._score_lines()
        yield from rejected_lines(self.output, self.rejected)
        yield from self._quarantine_lines()
        if self.judged is not None:
            yield ""
            yield from self.judged.lines()

    @property
    def few_scored(self) -> str:
        """The caveat of `actor_pairs_per_s`, where a run reused nearly all; else nothing."""
        return caveat(self.pairs, self.reused, self.copies)

    @property
    def _reuses(self) -> bool:
        return bool(self.reused or any(level.reused for level in self.levels))

    @property
    def _scored(self) -> int:
        """Pairs whose score is not the previous run's; of a cascade at all levels together."""
        if self.levels:
            return sum(level.pairs - level.reused for level in self.levels)
        return self.pairs - self.reused

    def _by(self) -> str:
        """How many the scorer scored, for people; the levels of a cascade are told in lines of their own."""
        if self.pairs and not self._scored:
            return ", none of which had to be scored,"
        by = f"scored by a cascade of {len(self.levels)} levels" if self.levels else f"scored by {self.model}"
        by += f" in {self.dtype}" if self.dtype else ""
        return f", {self._scored} of them {by}," if self.reused and not self.levels else f" {by}"

    def _level_lines(self) -> Iterator[str]:
        before = None
        for number, level in enumerate(self.levels):
            cut_none = ", nothing was cut before it" if before == level.pairs else ""
            yield f"  levels.{number}: {_level_line(level)}{cut_none}"
            before = level.pairs
        for name, mix in self.fused.items():
            yield f"  {name}: ranks by {mix}"

    def _cost_lines(self) -> Iterator[str]:
        if not self.actor_hours:
            return
        hours = self.actor_hours
        time_told = f"{hours:,.1f} hours" if hours >= 1 else f"{hours * 3600:.1f} s"
        speed = ""
        if self.actor_pairs_per_s is not None:
            speed = f": {self.actor_pairs_per_s:,.1f} pairs/s an actor {self.few_scored}".rstrip()
        yield f"The actors had work for {time_told}, all starts together{speed}"
        if self.cost is not None and self.cost_per_million_pairs is not None:
            factors = f"actors.price_per_hour x {hours:,.4g} hours"
            if self.levels:
                factors = "each level's actors.price_per_hour x its hours"
            per_million = f"{self.cost_per_million_pairs:,.4g} per million pairs of the run"
            per_million += ", reused ones too" if self._reuses else ""
            yield f"This cost {self.cost:,.4g} ({factors}), {per_million}"

    def _training_lines(self) -> Iterator[str]:
        if self.training_rows or self.no_training_row:
            yield (
                f"{self.training_rows} training rows in {self.output}/training_rows; {self.no_training_row}"
                " queries have none, for lack of a positive or a negative"
            )

    def _score_lines(self) -> Iterator[str]:
        """Which pairs were not scored each by itself, whole, or at all."""
        if self.reuse is not None and self.previous_run is None:
            none = "reuse: none, since no finished run of this scorer lies at"
            yield f"{none} {self.reuse}; every pair was scored"
        elif self.previous_run is not None and not self._reuses:
            yield f"reuse: none, since no pair has its score in {self.previous_run}; every pair was scored"
        if self.reused and not self.levels:
            share = self.reused / self.pairs
            yield f"{self.reused} pairs ({share:.1%}) took their score from the previous run"
        if self.copies and not self.levels:
            yield f"{self.copies} pairs took their score from an equal pair of their shard"
        if self.beyond_top_k:
            yield f"{self.beyond_top_k} candidates beyond input.top_k were left out of the run"
        if self.files_skipped:
            yield f"{self.files_skipped} files of the input were left out; --dry-run lists them"
        if self.truncated:
            to = (
                "to fit the scorer's lengths" if self.lengths is None else f"at {self.lengths.with_positions}"
            )
            to, at = ("at some level", " at the last level that read a pair") if self.levels else (to, "")
            yield (
                f"{self.truncated} pairs were cut {to}; query_cut and passage_cut in the run tell by how many"
                f" tokens{at}{_way_out(self.lengths)}"
            )
            for number, level in enumerate(self.levels):
                if level.lengths is not None:
                    yield (
                        f"  levels.{number}: {level.truncated} cut at {level.lengths.with_positions}"
                        f"{_way_out(level.lengths)}"
                    )

    def _quarantine_lines(self) -> Iterator[str]:
        if self.quarantined:
            yield (
                f"{len(self.quarantined)} shards were given up after {MAX_ATTEMPTS} processes died of each;"
                " the run lacks them, and there is no _SUCCESS. The same command tries them again:"
            )
        for shard in self.quarantined:
            yield f"  {shard.name}, in {shard.stage}: {', '.join(shard.places)}"


def totalled(totals: Totals) -> dict[str, Any]:
    """The fields of a Summary that are of all the shards done."""
    counts = totals.counts
    padding_share = 1 - counts.tokens / counts.padded_tokens if counts.padded_tokens else 0.0
    return {
        **counts.model_dump(exclude={"levels"}),
        "padding_share": round(padding_share, 4),
        "scores": _quantiles(totals.scores),
        "best_scores": _quantiles(totals.best_scores),
        "rank_changes": _shares(totals.rank_changes),
    }


def _way_out(lengths: Lengths | None) -> str:
    """How less is cut, where that is known."""
    if lengths is None:
        return ""
    larger = " or a larger length" if lengths.may_grow else ""
    return f"; scorer.long_passages{larger} reads more"


def _level_line(level: LevelSummary) -> str:
    """What a level did, for people."""
    scored = f", {level.pairs - level.reused} of them scored" if level.reused else ""
    parts = [f"{level.pairs} pairs{scored} by {level.model}, {level.tokens} tokens in {level.score_s:.1f} s"]
    parts += [f"{level.reused} scores of the previous run"] if level.reused else []
    parts += [f"{level.copies} of an equal pair"] if level.copies else []
    return ", ".join(parts)


def _quantiles(scores: Distribution) -> dict[str, float]:
    if not scores.counts:
        return {}
    between = {f"p{share}": scores.quantile(share / 100) for share in (5, 25, 50, 75, 95)}
    values = {"least": scores.least, **between, "largest": scores.largest}
    return {name: float(f"{value:.6g}") for name, value in values.items()}


def _shares(rank_changes: RankChanges) -> dict[str, float]:
    if not rank_changes.total:
        return {}
    counts = {
        "up": rank_changes.up,
        "same": rank_changes.same,
        "down": rank_changes.down,
        "places": rank_changes.distance,
    }
    shares = {name: count / rank_changes.total for name, count in counts.items()}
    stayed = {f"stayed_in_top_{place}": rank_changes.stayed_in_top(place) for place in (1, 10)}
    return {name: round(share, 4) for name, share in (shares | stayed).items()}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a working_dir on a cluster: the source is there, the package is not
            found[package] = "not installed"
    return found
