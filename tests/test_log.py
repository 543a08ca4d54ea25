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
