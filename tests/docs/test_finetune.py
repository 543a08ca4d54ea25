"""docs/finetune.md: each option of its table is told where it is, if it is written in a wrong place."""

import re

import pytest

from pipeline.config_file import load
from pipeline.errors import ConfigError
from pipeline.finetuning.config import FinetuneConfig
from tests.conftest import ROOT

TEXT = (ROOT / "docs/finetune.md").read_text()
TABLE = TEXT.partition("| option | here |\n")[2].partition("\n\n")[0].splitlines()[1:]
OPTIONS = [name for row in TABLE for name in re.findall(r"`(\w+)`", row.split("|")[1])]


def test_the_table_is_there() -> None:
    assert len(OPTIONS) > 40


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_in_a_wrong_place_is_told_the_right_one(name: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"{name}: there is no such field; (here it is|there is|there are) "
    ):
        load(FinetuneConfig, ROOT / "configs/finetune/demo.yaml", [f"output.{name}=1"])
