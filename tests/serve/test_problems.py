"""What can be wrong with a request, and where it is documented."""

from serve.dialects import cohere, jina, native, tei, vllm
from serve.problems import MEANING, STATUS, Problem, invalid
from tests.conftest import ROOT


def test_the_table_of_statuses_is_that_of_the_dialects() -> None:
    lines = (ROOT / "docs/serving.md").read_text().splitlines()
    assert MEANING.keys() == STATUS.keys()
    for kind, meaning in MEANING.items():
        statuses = [dialect.error(Problem(kind, ""), "")[0] for dialect in (tei, jina, cohere, vllm, native)]
        row = f"| {meaning} | {' | '.join(map(str, statuses))} | "
        assert sum(line.startswith(row) for line in lines) == 1, row


def test_a_long_name_of_a_field_is_not_told_whole() -> None:
    told = invalid([{"loc": ("body", "x" * 3_000_000), "type": "extra_forbidden", "msg": "no"}])
    assert told.message == f"{'x' * 40}: There is no such field"
    assert told.field == "x" * 40
