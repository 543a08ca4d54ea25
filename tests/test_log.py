import logging

import pytest

from pipeline import log


def test_a_value_stays_on_its_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rayrank"):
        log.info(
            "planned", output="/输出/run=1", path="/a\n2026 INFO request", key="a b", empty="", share=0.25
        )
    assert caplog.messages == [
        r"planned output=/输出/run=1 path='/a\n2026 INFO request' key='a b' empty='' share=0.2"
    ]


@pytest.mark.parametrize(
    "odd", ["\n", "\r", "\x0b", "\x1b[31m", "\x85", "\u2028", "\u202e", "\x00", "\udc80"]
)
def test_no_character_from_outside_ends_a_line_or_changes_how_it_looks(
    caplog: pytest.LogCaptureFixture, odd: str
) -> None:
    with caplog.at_level(logging.INFO, "rayrank"):
        log.warning(f"request failed{odd}", id=f"a{odd}b", texts=[f"c{odd}d"])
    (line,) = caplog.messages
    assert line.isprintable()
    assert len(line.splitlines()) == 1


def test_a_value_that_looks_quoted_is_quoted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rayrank"):
        log.info("request", id="'a'", path='/"b"')
    assert caplog.messages == ["""request id="'a'" path='/"b"'"""]
