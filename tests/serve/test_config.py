"""The args of a Serve config."""

from serve.config import ApiConfig, ReplicasConfig


def test_blanks_in_label_selectors_are_taken_out() -> None:
    config = ReplicasConfig(label_selector={"ray.io/accelerator-type": "in(A100, H100)"})
    assert config.label_selector == {"ray.io/accelerator-type": "in(A100,H100)"}


def test_docstrings_describe_the_fields() -> None:
    assert ApiConfig.model_fields["log_texts"].description == "Write queries and passages to the log."
