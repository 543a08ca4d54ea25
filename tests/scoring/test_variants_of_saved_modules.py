"""What sentence-transformers saves beside a network: scored as it scores that folder, or refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder, SentenceTransformer

from tests.scoring.checkpoints import KINDS, copied, edit, make_cross_encoder, make_trunk
from tests.scoring.references import (
    AGREES,
    bi_encoder,
    classifier,
    cross_encoder,
    embedder,
    ours,
    same_or_refused,
    saved_classifier,
)

__all__ = ["classifier", "embedder", "saved_classifier"]  # fixtures

SENTENCE_BERT = [
    {"max_seq_length": 16},
    {"max_seq_length": None},
    {"do_lower_case": True},
    {"query_length": 8},
    {"document_length": 12},
    {"tokenizer_args": {"model_max_length": 12}},
    {"model_args": {"trust_remote_code": True}},
    {"processing_kwargs": {"text": {"max_length": 10}}},
    {"unpad_inputs": False},
    {"transformer_task": "fill-mask"},
]


@pytest.mark.parametrize("fields", SENTENCE_BERT, ids=str)
@pytest.mark.parametrize("kind", ["saved_classifier", "embedder"])
def test_what_the_transformer_module_says(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    path = copied(request.getfixturevalue(kind), tmp_path)
    # The tokenizer of a cased model: what lowers its texts can only be this file.
    edit(path / "tokenizer_config.json", do_lower_case=False)
    name = "sentence_bert_config.json" if kind == "embedder" else "sentence_distilbert_config.json"
    (path / "sentence_bert_config.json").rename(path / name)
    edit(path / name, **fields)
    reference = bi_encoder if kind == "embedder" else cross_encoder
    same_or_refused(path, reference, *fields)


PROMPTS = [
    {"prompts": {"query": "query: ", "document": "passage: "}},
    {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": None},
    {"prompts": {"query": "query: ", "passage": "passage: "}},
    {"prompts": {"query": "query: ", "document": "passage: "}, "default_prompt_name": "query"},
    {"prompts": {"all": "text: "}, "default_prompt_name": "all"},
    {"prompts": {"all": "text: ", "query": "text: ", "document": "text: "}, "default_prompt_name": "all"},
    {"prompts": {}, "default_prompt_name": "nowhere"},
    {"similarity_fn_name": "dot"},
    {"similarity_fn_name": "cosine"},
    {"similarity_fn_name": "euclidean"},
    {"similarity_fn_name": "manhattan"},
    {"similarity_fn_name": None},
    {"similarity_fn_name": "maxsim"},
    {"truncate_dim": 8},
    {"model_type": "SparseEncoder"},
    {"model_type": "MultiVectorEncoder"},
    {"model_type": ...},
]


@pytest.mark.parametrize("fields", PROMPTS, ids=str)
def test_what_an_embedding_model_says(embedder: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    path = copied(embedder, tmp_path)
    edit(path / "config_sentence_transformers.json", **fields)
    same_or_refused(path, bi_encoder, *fields, *map(str, fields.values()))


@pytest.mark.parametrize(
    "fields",
    [
        {"prompts": {"query": "query: "}, "default_prompt_name": "query"},
        {"prompts": {"query": "query: ", "document": "passage: "}},
        {"prompts": {}, "default_prompt_name": "nowhere"},
        {"activation_fn": "torch.nn.modules.linear.Identity"},
        {"activation_fn": "torch.nn.modules.activation.Tanh"},
        {"model_type": "SentenceTransformer"},
        {"keep_in_fp32_modules": ["0.model.classifier"]},
    ],
    ids=str,
)
def test_what_a_cross_encoder_says(saved_classifier: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    path = copied(saved_classifier, tmp_path)
    edit(path / "config_sentence_transformers.json", **fields)
    same_or_refused(path, cross_encoder, *fields)


POOLINGS = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    lower=st.sampled_from([True, False, None]),
    accents=st.sampled_from([True, False, None]),
    chinese=st.booleans(),
    length=st.sampled_from([9, 31, 64, None]),
    similarity=st.sampled_from(["cosine", "dot", "euclidean", "manhattan", None]),
    prompts=st.dictionaries(st.sampled_from(["query", "document"]), st.sampled_from(["", "Query: ", "É"])),
    pooling=st.lists(st.sampled_from(POOLINGS), min_size=1, max_size=2, unique=True),
    dimensions=st.sampled_from([5, None]),
)
def test_any_embedding_model_scores_as_in_sentence_transformers(
    embedder: Path, tmp_path_factory: pytest.TempPathFactory, **drawn: Any
) -> None:
    path = copied(embedder, tmp_path_factory.mktemp("drawn"))
    edit(
        path / "tokenizer_config.json",
        do_lower_case=drawn["lower"],
        strip_accents=drawn["accents"],
        tokenize_chinese_chars=drawn["chinese"],
    )
    edit(path / "sentence_bert_config.json", max_seq_length=drawn["length"])
    edit(
        path / "config_sentence_transformers.json",
        similarity_fn_name=drawn["similarity"],
        prompts=drawn["prompts"],
        truncate_dim=drawn["dimensions"],
    )
    edit(path / "1_Pooling/config.json", pooling_mode=drawn["pooling"])
    if drawn["lower"] is None:
        edit(path / "tokenizer_config.json", do_lower_case=...)
    np.testing.assert_allclose(ours(path), bi_encoder(path), atol=AGREES, rtol=AGREES)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fields", [{}, {"add_prefix_space": True}, {"do_lower_case": True}], ids=str)
def test_every_architecture_as_sentence_transformers_saves_it(
    tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    make_cross_encoder(tmp_path / "raw", kind)
    make_trunk(tmp_path / "trunk", kind)
    CrossEncoder(str(tmp_path / "raw"), device="cpu", max_length=24).save_pretrained(str(tmp_path / "cross"))
    SentenceTransformer(str(tmp_path / "trunk"), device="cpu").save_pretrained(str(tmp_path / "bi"))
    for name, reference in (("cross", cross_encoder), ("bi", bi_encoder)):
        edit(tmp_path / name / "tokenizer_config.json", **fields)
        np.testing.assert_allclose(
            ours(tmp_path / name), reference(tmp_path / name), atol=AGREES, rtol=AGREES
        )


def test_an_option_takes_the_place_of_a_prompt(saved_classifier: Path, tmp_path: Path) -> None:
    path = copied(saved_classifier, tmp_path)
    edit(path / "config_sentence_transformers.json", prompts={"q": "panda "}, default_prompt_name="q")
    with_prompt, without = ours(path), ours(path, query_instruction_for_rerank="")
    assert np.abs(with_prompt - without).max() > 1e-3
    np.testing.assert_allclose(without, ours(saved_classifier), atol=AGREES, rtol=0)
