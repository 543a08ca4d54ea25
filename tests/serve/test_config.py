"""The args of a Serve config."""

from serve.config import ReplicasConfig


def test_blanks_in_label_selectors_are_taken_out() -> None:
    config = ReplicasConfig(label_selector={"ray.io/accelerator-type": "in(A100, H100)"})
    assert config.label_selector == {"ray.io/accelerator-type": "in(A100,H100)"}
