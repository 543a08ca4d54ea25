"""Checkpoints in many variants: scored as sentence-transformers scores that folder, or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, normalizers
from transformers import AutoModelForCausalLM, BertTokenizer

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring import Scorer, ScorerConfig
from tests.conftest import DATA, TINY
from tests.scoring.checkpoints import (
    KINDS,
    byte_level,
    copied,
    edit,
    make_cross_encoder,
    make_qwen3,
    make_trunk,
    unigram,
    wordpiece,
)

Scores = npt.NDArray[np.float32]
PAIRS = [
    ("What is a Panda?", "The giant panda is a bear native to China."),
    ("Ünïcödé naïve CAFÉ", "什么是大熊猫 rerankers read"),
    ("ΟΔΟΣ one", "give ONE score, two  blanks\nand a line"),
    ("a", ""),
    ("a query", "a passage and " * 30),
]
AGREES = 1e-5
GEMMA, MINICPM, GEMMA2 = (
    f"tiny-bge-reranker-{name}" for name in ("v2-gemma", "v2-minicpm-layerwise", "v2.5-gemma2-lightweight")
)


def ours(path: Path, **options: Any) -> Scores:
    config = ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options})
    return Scorer(config).score(PAIRS)


def cross_encoder(path: Path) -> Scores:
    """Pair by pair, since what a pair's padding does is not the pair's."""
    peer = CrossEncoder(str(path), device="cpu")
    return np.concatenate([peer.predict([pair], activation_fn=torch.nn.Identity()) for pair in PAIRS])


def bi_encoder(path: Path) -> Scores:
    peer = SentenceTransformer(str(path), device="cpu")
    scores = [
        peer.similarity(peer.encode_query([query]), peer.encode_document([passage]))[0, 0]
        for query, passage in PAIRS
    ]
    return np.array([float(score) for score in scores], np.float32)


def same_or_refused(path: Path, reference: Callable[[Path], Scores], *named: str, **options: Any) -> None:
    """named: words of which a refusal has one."""
    try:
        scores = ours(path, **options)
    except ModelError as error:
        message = str(error)
    else:
        np.testing.assert_allclose(scores, reference(path), atol=AGREES, rtol=AGREES)
        return
    assert "\n" not in message
    assert any(word in message for word in named), message


def bert_words(path: Path) -> None:
    """The tokenizer in the checkpoint, as one of BERT's own class, which reads its options."""
    vocabulary = Tokenizer.from_file(str(path / "tokenizer.json")).get_vocab()
    BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=128).save_pretrained(path)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_cross_encoder(tmp_path_factory.mktemp("classifier"), "bert")
    bert_words(path)
    return path


@pytest.fixture(scope="module")
def saved_classifier(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> Path:
    path = tmp_path_factory.mktemp("saved")
    CrossEncoder(str(classifier), device="cpu", max_length=48).save_pretrained(str(path))
    return path


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw, path = (tmp_path_factory.mktemp(name) for name in ("raw", "embedder"))
    make_trunk(raw, "bert")
    bert_words(raw)
    SentenceTransformer(str(raw), device="cpu").save_pretrained(str(path))
    return path


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


@pytest.mark.parametrize(
    "fields",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.0"}},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.ReLU"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Sigmoid"},
        {"sbert_ce_default_activation_function": "own.Activation"},
        {"problem_type": "regression"},
        {"attn_implementation": "eager"},
        {"is_decoder": True},
        {"output_attentions": True},
        {"return_dict": False},
        {"output_hidden_states": True},
        {"attn_implementation": "kernels-community/flash-attn2"},
        {"attn_implementation": "flash_attention_2"},
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        {"transformers_weights": "pytorch_model.safetensors"},
        {"torch_dtype": "bfloat16"},
        {"num_labels": 2},
        {"id2label": {"0": "no", "1": "yes"}},
        {"id2label": None, "label2id": None},
        {"hidden_act": "gelu_new"},
        {"layer_norm_eps": 0.1},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3},
        {"position_embedding_type": "relative_key"},
        {"hidden_size": "32"},
        {"hidden_size": -32},
        {"num_attention_heads": 5},
        {"vocab_size": 20},
        {"max_position_embeddings": "130"},
        {"max_position_embeddings": -1},
        {"architectures": "BertForSequenceClassification"},
        {"architectures": [None]},
        {"model_type": 3},
        {"model_type": "no-such-type"},
        {"pad_token_id": 10_000},
        {"auto_map": {"AutoModelForSequenceClassification": "modeling.Own"}, "model_type": "own"},
    ],
    ids=str,
)
def test_what_config_json_says(classifier: Path, tmp_path: Path, fields: dict[str, Any]) -> None:
    path = copied(classifier, tmp_path)
    edit(path / "config.json", **fields)
    same_or_refused(path, cross_encoder, *fields, str(path))


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


DECODER = [
    {},
    {"attn_implementation": "eager"},
    {"output_attentions": True},
    {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0},
    {"layer_types": ["sliding_attention", "full_attention", "full_attention"], "sliding_window": 4},
    {"use_bidirectional_attention": True},
    {"is_causal": False},
    {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}},
    {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    {"rope_theta": 50.0},
    {"rms_norm_eps": 0.5},
    {"hidden_act": "relu"},
    {"head_dim": 16},
    {"tie_word_embeddings": True},
    {"num_hidden_layers": 2},
    {"quantization_config": {"quant_method": "awq"}},
]


def of_the_language_model(path: Path) -> Scores:
    """The logits of the two tokens, by transformers' own forward of the sequences that we encode."""
    scorer = Scorer(ScorerConfig(model=str(path), device="cpu"))
    network = AutoModelForCausalLM.from_pretrained(path)  # in evaluation mode
    yes, no = (scorer.checkpoint.tokenizer.token_to_id(word) for word in ("yes", "no"))
    scores = []
    with torch.inference_mode():
        for ids in scorer.encode(PAIRS).sequences.to_pylist():
            logits = network(input_ids=torch.tensor([ids])).logits[0, -1]
            scores.append(float(logits[yes] - logits[no]))
    return np.array(scores, np.float32)


@pytest.mark.parametrize("fields", DECODER, ids=str)
def test_what_a_decoders_config_says(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = make_qwen3(tmp_path)
    edit(path / "config.json", **fields)
    same_or_refused(path, of_the_language_model, *fields, "lm_head", str(path))


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        (MINICPM, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}),
        (MINICPM, {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0}}),
        (MINICPM, {"head_type": "raw"}),
        (MINICPM, {"scale_depth": ...}),
        (MINICPM, {"scale_emb": "12"}),
        (MINICPM, {"start_layer": ...}),
        (MINICPM, {"start_layer": 7}),
        (MINICPM, {"num_hidden_layers": "6"}),
        (MINICPM, {"num_attention_heads": "4"}),
        (GEMMA2, {"final_logit_softcapping": None}),
        (GEMMA2, {"final_logit_softcapping": 0.0}),
        (GEMMA2, {"layer_sep": 0}),
        (GEMMA2, {"head_dim": "16"}),
        (GEMMA2, {"rope_theta": "1e4"}),
        (GEMMA, {"use_bidirectional_attention": True}),
        (GEMMA, {"hidden_size": "64"}),
    ],
    ids=str,
)
def test_what_is_not_run_of_the_published_decoders_is_named(
    tmp_path: Path, name: str, fields: dict[str, Any]
) -> None:
    path = copied(DATA / name, tmp_path)
    edit(path / "config.json", **fields)
    with pytest.raises(ModelError, match=f"config.json: .*{next(iter(fields))}"):
        Scorer(ScorerConfig(model=str(path)))


@pytest.mark.parametrize("name", [GEMMA, MINICPM, GEMMA2])
def test_a_begin_token_is_never_left_out_for_want_of_a_word(tmp_path: Path, name: str) -> None:
    path = copied(DATA / name, tmp_path)
    edit(path / "tokenizer_config.json", bos_token=...)
    encode = [Scorer(ScorerConfig(model=str(each))).encode for each in (path, DATA / name)]
    assert encode[0]([("a", "b")]).sequences == encode[1]([("a", "b")]).sequences
    (path / "special_tokens_map.json").unlink()
    with pytest.raises(ModelError, match="bos_token: is not there: write the begin token, or null"):
        Scorer(ScorerConfig(model=str(path))).encode([("a", "b")])


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("tiny-bge-reranker", 6),  # four special tokens, one of the query, one of the passage
        (GEMMA, 4),  # `B: ` and a token; three quarters of it are the query's
        (MINICPM, 4),
        (GEMMA2, 4),
    ],
    ids=str,
)
def test_a_length_at_which_nothing_would_be_read_is_refused(name: str, least: int) -> None:
    def encode(length: int) -> Any:
        scorer = Scorer(ScorerConfig(model=str(DATA / name), max_length=length))
        return scorer.encode([("panda " * 9, "bear " * 9)])

    encode(least)
    with pytest.raises(ConfigError, match=f"max_length {least - 1}: leaves query and passage no room"):
        encode(least - 1)


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


UNFIT = {
    "fnet": (unigram, {"type_vocab_size": 2}, "depends on the batch"),
    "nystromformer": (wordpiece, {"type_vocab_size": 2}, "depends on the batch"),
    "convbert": (wordpiece, {"type_vocab_size": 2, "embedding_size": 32}, "depends on the batch"),
    "qwen3": (byte_level, {"num_key_value_heads": 2, "head_dim": 8}, "no padding token is defined"),
    "roberta": (byte_level, {"type_vocab_size": 1}, "scores no pair: "),
}
"""Classifiers that score no batch as transformers scores its pairs, without a padding token or with one."""


@pytest.mark.parametrize("kind", UNFIT)
def test_a_network_that_scores_no_batch_is_the_models_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    tokenizer, options, message = UNFIT[kind]
    monkeypatch.setitem(KINDS, kind, (tokenizer, options))
    path = make_cross_encoder(tmp_path, kind)
    if "batch" not in message:
        edit(path / "config.json", pad_token_id=None)
    with pytest.raises(ModelError, match=message) as caught:
        ours(path)
    assert "\n" not in str(caught.value)


def test_an_option_takes_the_place_of_a_prompt(saved_classifier: Path, tmp_path: Path) -> None:
    path = copied(saved_classifier, tmp_path)
    edit(path / "config_sentence_transformers.json", prompts={"q": "panda "}, default_prompt_name="q")
    with_prompt, without = ours(path), ours(path, query_instruction_for_rerank="")
    assert np.abs(with_prompt - without).max() > 1e-3
    np.testing.assert_allclose(without, ours(saved_classifier), atol=AGREES, rtol=0)


def test_a_config_that_is_none_is_told_what_to_write(classifier: Path) -> None:
    unchecked: Any = Scorer  # a checker of types would tell, too
    with pytest.raises(ConfigError, match=r"write Scorer\(ScorerConfig\(model='.*'\)\)"):
        unchecked(str(classifier))
