from functools import partial

from benchmarks.bench import as_markdown, in_turn


def test_sides_change_places_every_round() -> None:
    order = []

    def side(name: str) -> float:
        order.append(name)
        return 1.0

    sides = {name: partial(side, name) for name in ("one", "other")}
    assert [in_turn(sides, turn) for turn in range(2)] == [{"one": 1.0, "other": 1.0}] * 2
    assert order == ["one", "other", "other", "one"]


def test_the_table_tells_the_peers_batch_size() -> None:
    result = {
        "ratios": {"a / b": 1.0},
        "rounds": {"a / b": [0.9, 1.0, 1.1]},
        "machine": "a chip",
        "versions": {"torch": "2"},
        "peer_batch_size": 8,
        "date": "today",
    }
    told = as_markdown(result)
    assert "| a / b | 1.000 | 0.900 to 1.100 |" in told
    assert "sentence-transformers in batches of 8, its fastest of 1 to 64. a chip; torch 2; today." in told
