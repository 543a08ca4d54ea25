from pipeline.reporting.curves import curve


def test_a_curve_has_a_point_a_step_and_points_at_the_best() -> None:
    made = curve([(0, 0.5), (10, 0.9), (20, 0.7)], "nDCG@10", from_zero=False, best=10)
    assert made is not None
    assert [(point.x, round(point.y, 6)) for point in made.points] == [(0, 0), (50, 100), (100, 50)]
    assert made.points[1].title == "step 10: nDCG@10 0.9"
    assert [(note.at, note.label) for note in made.notes] == [(50, "kept: step 10")]
    assert made.x_ticks[0].label == "0"
    assert made.x_ticks[-1].label == "20"


def test_many_steps_become_means() -> None:
    made = curve([(step, float(step % 2)) for step in range(1, 1001)], "loss", from_zero=True)
    assert made is not None
    assert len(made.points) == 112
    assert made.points[0].title == "step 1 to 9: loss 0.5556 on average"
    assert made.points[-1].row == ("1,000", "0")
    assert all(0 <= point.x <= 100 and 0 <= point.y <= 100 for point in made.points)


def test_values_that_never_change_lie_in_the_middle() -> None:
    for values in ([(1, 0.0)], [(1, 0.0), (2, 0.0)]):
        made = curve(values, "loss", from_zero=True)
        assert made is not None
        assert {point.y for point in made.points} == {50}
        assert [tick.label for tick in made.y_ticks] == ["0"]
    assert curve([], "loss", from_zero=True) is None
