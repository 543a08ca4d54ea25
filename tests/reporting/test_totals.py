from datetime import timedelta
from itertools import islice, permutations

from pipeline.reporting.totals import SLOWEST, Timeline, Totals
from pipeline.tables.output.statistics import Distribution
from tests.reporting.reports import SCORES, START, report


def test_reports_add_up_in_any_order() -> None:
    reports = [report(index, rejected={"null_query": index + 1}, score_s=1.0 + index) for index in range(3)]
    tallies = []
    for order in permutations(reports):
        totals = Totals()
        for one in order:
            totals.add(one)
        tallies.append(totals)
    for totals in tallies:
        counts = totals.counts
        assert (counts.pairs, counts.queries, counts.tokens, counts.rejected) == (
            60,
            6,
            6000,
            {"null_query": 6},
        )
        assert (totals.scores.total, totals.best_scores.total, totals.rank_changes.total) == (60, 6, 60)
        assert [one.name for one in totals.slowest] == ["shard-000002", "shard-000001", "shard-000000"]


def test_levels_of_a_cascade_add_up_each_for_itself() -> None:
    levels = [{"pairs": 20, "tokens": 900}, {"pairs": 6, "tokens": 300, "reused": 1}]
    scores = [Distribution.of(SCORES), Distribution.of(SCORES[:6])]
    totals = Totals()
    for index in range(3):
        totals.add(report(index, levels=levels, level_scores=scores))
    assert [(level.pairs, level.tokens, level.reused) for level in totals.counts.levels] == [
        (60, 2700, 0),
        (18, 900, 3),
    ]
    assert [each.total for each in totals.level_scores] == [60, 18]


def test_a_job_with_one_scorer_says_nothing_of_levels() -> None:
    totals = Totals()
    totals.add(report())
    assert "level" not in report().model_dump_json() + totals.counts.model_dump_json()
    assert totals.level_scores == ()


def test_only_the_slowest_are_remembered() -> None:
    totals = Totals()
    for index in range(100):
        totals.add(report(index, score_s=float(index * 37 % 100)))
    assert [one.counts.score_s for one in totals.slowest] == [99.0 - number for number in range(SLOWEST)]


def test_pairs_count_over_the_time_in_which_they_were_scored() -> None:
    timeline = Timeline()
    timeline.add(report(finished=START + timedelta(seconds=2.5), score_s=4.0, pairs=40))
    first = int(START.timestamp())
    assert timeline.pairs == {first - 2: 5, first - 1: 10, first: 10, first + 1: 10, first + 2: 5}
    assert timeline.by(5) == {first // 5 - 1: 15, first // 5: 25}


def test_a_long_job_takes_no_more_room() -> None:
    timeline = Timeline()
    for hour in range(3000):
        timeline.add(report(finished=START + timedelta(hours=hour), score_s=3600.0))
    assert len(timeline.pairs) <= 4096
    assert round(sum(timeline.pairs.values())) == 3000 * 20
    assert all(round(pairs) == 20 for pairs in islice(timeline.by(3600).values(), 1, 2999))
