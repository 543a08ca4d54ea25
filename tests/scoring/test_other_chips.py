"""The published scores hold where torch has other instructions: one chip plays another."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CHIPS = {
    "no vectors": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "DNNL_MAX_CPU_ISA": "SSE41",
    },
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2"},
}


SCRIPT = """
import numpy as np
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.lean_imports import lean_imports
from tests.conftest import DATA, golden_cases

def scorer_of(case):
    scorer = Scorer(ScorerConfig.model_validate({"model": case.checkpoint, "device": "cpu", **case.options}))
    with lean_imports():
        _ = scorer.model
    return scorer

for checkpoint in DATA.glob("tiny-*"):
    case = golden_cases(checkpoint.name)[0]
    scorer = scorer_of(case)
    np.testing.assert_allclose(scorer.score(case.pairs), case.scores, atol=1e-4, rtol=0)
    same = scorer.score([case.pairs[0], *case.pairs[:9], case.pairs[0]])
    assert (same[0] == same[1]).all() and (same[0] == same[-1]).all()
"""


@pytest.mark.parametrize("chip", CHIPS)
def test_scores_are_the_published_ones_on_other_chips(chip: str) -> None:
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | CHIPS[chip], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
