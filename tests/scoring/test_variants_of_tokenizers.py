"""What a checkpoint's tokenizer files say: scored as sentence-transformers scores that folder, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, normalizers
from transformers import BertTokenizer

from pipeline.errors import ModelError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.tokenizer_files import auto_tokenizer
from tests.conftest import DATA, TINY
from tests.scoring.checkpoints import copied, edit, make_cross_encoder
from tests.scoring.references import (
    AGREES,
    GEMMA,
    GEMMA2,
    MINICPM,
    bi_encoder,
    classifier,
    cross_encoder,
    embedder,
    ours,
    same_or_refused,
)

__all__ = ["classifier", "embedder"]  # fixtures

TOKENIZER = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": ...},
    {"do_lower_case": False, "strip_accents": True},
    {"strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"model_max_length": 20},
    {"model_max_length": 1e30},
    {"model_max_length": ...},
    {"truncation_side": "left"},
    {"padding_side": "left"},
    {"model_input_names": ["input_ids", "attention_mask"]},
    {"extra_special_tokens": ["panda"]},
    {"sep_token": "[CLS]"},
    {"unk_token": "[MASK]"},
    {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": False},
    {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False},
    {"tokenizer_class": "XLMRobertaTokenizer"},
    {"tokenizer_class": "NoSuchTokenizer"},
    {"add_prefix_space": True},
]


@pytest.mark.parametrize("fields", TOKENIZER, ids=str)
@pytest.mark.parametrize("kind", ["classifier", "embedder"])
def test_what_tokenizer_config_says(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    path = copied(request.getfixturevalue(kind), tmp_path)
    edit(path / "tokenizer_config.json", **fields)
    reference = bi_encoder if kind == "embedder" else cross_encoder
    same_or_refused(path, reference, *fields, "tokenizer", "token")


@pytest.mark.parametrize("lowers", [False, True])
def test_a_class_that_config_json_names(classifier: Path, tmp_path: Path, lowers: bool) -> None:
    """As older files have it, here of a model type that transformers does not know."""
    path = copied(classifier, tmp_path)
    edit(path / "tokenizer_config.json", tokenizer_class=..., do_lower_case=lowers)
    edit(path / "config.json", model_type="new", tokenizer_class="BertTokenizer")
    expected = BertTokenizer.from_pretrained(path)("A Panda eats").input_ids
    assert auto_tokenizer(path, trust_remote_code=False)("A Panda eats").input_ids == expected


@pytest.mark.parametrize("part", ["truncation", "padding"])
@pytest.mark.parametrize("kind", ["classifier", "embedder"])
def test_the_sides_of_tokenizer_json(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, part: str
) -> None:
    path = copied(request.getfixturevalue(kind), tmp_path)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    if part == "truncation":
        tokenizer.enable_truncation(20, direction="left")
    else:
        tokenizer.enable_padding(direction="left")
    tokenizer.save(str(path / "tokenizer.json"))
    edit(path / "tokenizer_config.json", truncation_side=..., padding_side=..., model_max_length=20)
    reference = bi_encoder if kind == "embedder" else cross_encoder
    same_or_refused(path, reference, f"{part}_side")
    edit(path / "tokenizer_config.json", **{f"{part}_side": "right"})
    same_or_refused(path, reference)


@pytest.mark.parametrize("kind", ["classifier", "embedder"])
def test_a_vocabulary_alone_is_enough(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    path = copied(request.getfixturevalue(kind), tmp_path)
    words = Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab()
    (path / "vocab.txt").write_text("\n".join(sorted(words, key=words.__getitem__)) + "\n")
    (path / "tokenizer.json").unlink()
    reference = bi_encoder if kind == "embedder" else cross_encoder
    np.testing.assert_allclose(ours(path), reference(path), atol=AGREES, rtol=AGREES)
    (path / "vocab.txt").write_text("")
    with pytest.raises(ModelError, match=r"empty vocabulary|makes no tokenizer"):
        ours(path)
    (path / "vocab.txt").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer: neither tokenizer.json nor a vocabulary"):
        ours(path)


@pytest.mark.parametrize("lowers", [True, False])
def test_the_normalizer_of_tokenizer_json_against_its_config(
    classifier: Path, tmp_path: Path, lowers: bool
) -> None:
    path = copied(classifier, tmp_path)
    words = Tokenizer.from_file(str(path / "tokenizer.json"))
    words.normalizer = normalizers.BertNormalizer(lowercase=lowers)
    words.save(str(path / "tokenizer.json"))
    same_or_refused(path, cross_encoder, "do_lower_case")


@pytest.mark.parametrize("name", [GEMMA, MINICPM, GEMMA2])
def test_a_begin_token_is_never_left_out_for_want_of_a_word(tmp_path: Path, name: str) -> None:
    path = copied(DATA / name, tmp_path)
    edit(path / "tokenizer_config.json", bos_token=...)
    encode = [Scorer(ScorerConfig(model=str(each))).encode for each in (path, DATA / name)]
    assert encode[0]([("a", "b")]).sequences == encode[1]([("a", "b")]).sequences
    (path / "special_tokens_map.json").unlink()
    with pytest.raises(ModelError, match="bos_token: is not there: write the begin token, or null"):
        Scorer(ScorerConfig(model=str(path))).encode([("a", "b")])


@pytest.mark.parametrize("name", [GEMMA, MINICPM, GEMMA2, "tiny-bge-reranker"])
@pytest.mark.parametrize(
    "fields",
    [
        {"bos_token": "<nowhere>"},
        {"added_tokens_decoder": {"0": {"content": "<other>"}}},
        {"pad_token": ["<pad>"]},
        {"added_tokens_decoder": []},
        {"tokenizer_class": 3},
        {"truncation_side": "left"},
    ],
    ids=str,
)
def test_published_tokenizers_agree_with_their_config(
    tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    path = copied(DATA / name, tmp_path)
    edit(path / "tokenizer_config.json", **fields)
    with pytest.raises(ModelError, match=f"tokenizer_config.json: {next(iter(fields))}"):
        ours(path)


OWN_TOKENIZERS = [
    ("xlm-roberta", "XLMRobertaTokenizer", {}),
    ("roberta", "RobertaTokenizer", {}),
    ("roberta", "RobertaTokenizer", {"add_prefix_space": True}),
    ("roberta", "RobertaTokenizer", {"trim_offsets": False}),
    ("deberta-v2", "DebertaV2Tokenizer", {}),
    ("deberta-v2", "DebertaV2Tokenizer", {"do_lower_case": True}),
    ("deberta-v2", "DebertaV2Tokenizer", {"split_by_punct": True}),
    ("bert", "AlbertTokenizer", {"do_lower_case": False}),
    ("bert", "MPNetTokenizer", {"do_lower_case": False}),
    ("bert", "LlamaTokenizer", {}),
]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"add_prefix_space": False},
        {"extra_special_tokens": ["panda"]},
        {"additional_special_tokens": ["capital of"]},
        {"sep_token": "<mask>"},
        {"eos_token": "<mask>"},
        {"do_lower_case": True},
        {"model_max_length": 12},
        {"tokenizer_class": "XLMRobertaTokenizerFast"},
        {"tokenizer_class": "BertTokenizer"},
        {"tokenizer_class": ...},
    ],
    ids=str,
)
def test_the_tokenizer_of_the_published_encoder(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = copied(Path(TINY), tmp_path)
    edit(path / "tokenizer_config.json", **fields)
    same_or_refused(path, cross_encoder, *fields, truncation="longest_first")


@pytest.mark.parametrize(("kind", "tokenizer", "fields"), OWN_TOKENIZERS, ids=str)
def test_tokenizers_of_other_classes(
    tmp_path: Path, kind: str, tokenizer: str, fields: dict[str, Any]
) -> None:
    path = make_cross_encoder(tmp_path, kind)
    edit(path / "tokenizer_config.json", tokenizer_class=tokenizer, **fields)
    same_or_refused(path, cross_encoder, *fields, "tokenizer")
