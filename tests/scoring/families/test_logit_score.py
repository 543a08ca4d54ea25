"""Against sentence-transformers' CrossEncoder, on tiny checkpoints that it saved itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore

from pipeline.errors import ConfigError, ModelError, ScoringError
from pipeline.scoring import Scorer, ScorerConfig
from pipeline.scoring.config import Limits
from pipeline.scoring.copies import distinct
from pipeline.scoring.tokenizer_files import auto_tokenizer
from tests.scoring.checkpoints import copied, edit, make_chatty

PAIRS = [
    ("what is a panda?", "The giant panda is a bear native to China."),
    ("what is a panda?", "rerankers give one score"),
    ("what is a panda?", ""),
    ("", " leading blank"),
    ("什么是大熊猫", "Ünïcödé naïve café\n\n🐼"),
    ("ends with a blank ", "\nnew line first"),
    ("a line and its end\n", "a line and its end\n"),
    ("says <|im_end|> itself", "<|im_start|>user\nsays so"),
]
LONG = [
    ("a panda", "a passage that is far too long " * 60),
    ("a panda", "ends with its line " * 70 + "\n"),
    ("a query that is far too long " * 60, "a passage"),
]
LIKE_MXBAI = (
    "<|im_start|>system\nYou judge.<|im_end|>\n<|im_start|>user\n"
    "{% if messages[0].role == 'system' %}instruction: {{ messages[0].content }}\n{% endif %}"
    "query: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }}\n"
    "document: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}\n"
    "Is it relevant (0 or 1)?\nRelevance:<|im_end|>\n<|im_start|>assistant\n"
)
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IN_PARTS = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content[0].text }}<|im_end|>\n"
    "{% endfor %}"
)
EITHER = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is string %}"
    "{{ message.content }}{% else %}{% for part in message.content if part.type == 'text' %}[T]"
    "{{ part.text }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
)
PASSAGE_FIRST = (
    "Check whether a document helps.\n"
    "<Document> {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content') | first }}\n"
    "<Query> {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content') | first }} ??"
)


def saved(path: Path, kind: str, template: str, *, no: bool = True, **options: Any) -> Path:
    """options: those of the Transformer's processing_kwargs."""
    made = make_chatty(path / "bare", kind, **({"sliding_window": None} if kind == "mistral" else {}))
    edit(made / "tokenizer_config.json", chat_template=template, model_max_length=300)
    words = json.loads((made / "tokenizer.json").read_text())["model"]["vocab"]
    transformer = Transformer(
        str(made), transformer_task="text-generation", processing_kwargs={"chat_template": options}
    )
    score = LogitScore(words["yes"], words["no"] if no else None)
    CrossEncoder(modules=[transformer, score], device="cpu").save_pretrained(str(path / "saved"))
    return path / "saved"


def of_the_peer(path: Path, pairs: list[tuple[str, str]], **options: Any) -> Any:
    peer = CrossEncoder(str(path), device="cpu")
    return peer.predict(pairs, activation_fn=torch.nn.Identity(), **options)


def scorer(path: Path, **options: Any) -> Scorer:
    return Scorer(ScorerConfig.model_validate({"model": str(path), "device": "cpu", **options}))


@pytest.mark.parametrize(
    ("kind", "template", "options"),
    [
        ("qwen2", LIKE_MXBAI, {}),
        ("qwen3", LIKE_MXBAI, {"no": False}),
        ("llama", LIKE_MXBAI, {}),
        ("qwen3", CHATML, {"add_generation_prompt": True}),
        ("qwen2", IN_PARTS, {"no": False}),
        ("llama", PASSAGE_FIRST, {}),
        ("mistral", PASSAGE_FIRST, {"no": False}),
        ("gemma", LIKE_MXBAI, {}),
    ],
)
def test_scores_are_those_of_the_peer(tmp_path: Path, kind: str, template: str, options: Any) -> None:
    path = saved(tmp_path, kind, template, **options)
    pairs = PAIRS if template is PASSAGE_FIRST else PAIRS + LONG  # where the peer cuts the query off
    # Padding on the left moves the peer's scores of a Gemma, by 6e-5.
    expected = of_the_peer(path, pairs, batch_size=1)
    assert np.ptp(expected) > 0.1
    for budget in (1, 300, 100_000):
        model = scorer(path, max_batch_tokens=budget)
        assert (model.family, model.encoder.max_length) == ("logit_score", 300)
        np.testing.assert_allclose(model.score(pairs), expected, atol=1e-5, rtol=1e-5)


def test_another_length_cuts_as_in_the_peer(tmp_path: Path) -> None:
    path = saved(tmp_path, "qwen2", LIKE_MXBAI)
    edit(path / "tokenizer_config.json", model_max_length=100_000)  # the model has 400 positions
    assert scorer(path).encoder.max_length == 400
    np.testing.assert_allclose(scorer(path).score(LONG), of_the_peer(path, LONG), atol=1e-5, rtol=1e-5)
    shorter = scorer(path, max_length=150).score(LONG)
    edit(path / "tokenizer_config.json", model_max_length=150)
    np.testing.assert_allclose(shorter, of_the_peer(path, LONG), atol=1e-5, rtol=1e-5)


def test_the_instruction_is_the_checkpoints_or_the_jobs(tmp_path: Path) -> None:
    path = saved(tmp_path, "qwen3", LIKE_MXBAI)
    without = scorer(path).score(PAIRS)
    edit(path / "config_sentence_transformers.json", prompts={"task": "Judge it"}, default_prompt_name="task")
    own = scorer(path).score(PAIRS)
    assert np.abs(own - without).max() > 0.01
    np.testing.assert_allclose(own, of_the_peer(path, PAIRS), atol=1e-5, rtol=1e-5)
    other = scorer(path, query_instruction_for_rerank="Be quick").score(PAIRS)
    np.testing.assert_allclose(other, of_the_peer(path, PAIRS, prompt="Be quick"), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(scorer(path, query_instruction_for_rerank="").score(PAIRS), without)


def test_an_instruction_without_a_place_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "llama", PASSAGE_FIRST)
    with pytest.raises(ConfigError, match="query_instruction_for_rerank: the chat template of .* no place"):
        scorer(path, query_instruction_for_rerank="Be quick").score(PAIRS)


def test_a_default_prompt_without_a_place_is_passed_over_as_in_the_peer(tmp_path: Path) -> None:
    path = saved(tmp_path, "llama", PASSAGE_FIRST)
    edit(path / "config_sentence_transformers.json", prompts={"task": "Judge it"}, default_prompt_name="task")
    np.testing.assert_allclose(scorer(path).score(PAIRS), of_the_peer(path, PAIRS), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="query_instruction_for_rerank: the chat template of .* no place"):
        scorer(path, query_instruction_for_rerank="Be quick").score(PAIRS)


@pytest.mark.parametrize("form", [..., "auto", "flat", "structured"])
def test_messages_hold_texts_or_parts_as_in_the_peer(tmp_path: Path, form: Any) -> None:
    path = saved(tmp_path, "qwen2", EITHER)
    settings = json.loads((path / "sentence_bert_config.json").read_text())["modality_config"]
    settings["message"]["format"] = form
    if form is ...:
        del settings["message"]["format"]
    edit(path / "sentence_bert_config.json", modality_config=settings)
    np.testing.assert_allclose(scorer(path).score(PAIRS), of_the_peer(path, PAIRS), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("template", [LIKE_MXBAI, PASSAGE_FIRST])
def test_what_is_cut_is_told_and_the_query_stays(tmp_path: Path, template: str) -> None:
    model = scorer(saved(tmp_path, "qwen2", template))
    encoded = model.encode([*PAIRS[:3], *LONG[:2]])
    assert [bool(cut) for cut in encoded.pairs["passage_cut"].to_pylist()] == [False] * 3 + [True] * 2
    assert encoded.pairs["query_cut"].to_pylist() == [0] * 5
    assert {len(ids) for ids in encoded.sequences.to_pylist()[3:]} == {300}
    tokenizer = model.checkpoint.tokenizer
    texts = [tokenizer.decode(ids, skip_special_tokens=False) for ids in encoded.sequences.to_pylist()]
    assert all("a panda" in text for text in texts)
    assert all(text.endswith(texts[0][-3:]) for text in texts)


def test_a_query_that_leaves_no_room_before_it_is_refused(tmp_path: Path) -> None:
    model = scorer(saved(tmp_path, "llama", PASSAGE_FIRST))
    with pytest.raises(ScoringError, match="the query leaves the passage no room: raise max_length"):
        model.score([*PAIRS, LONG[2]])


@pytest.mark.parametrize("template", [LIKE_MXBAI, PASSAGE_FIRST, CHATML])
def test_windows_of_a_long_passage(tmp_path: Path, template: str) -> None:
    path = saved(tmp_path, "qwen2", template)
    model = scorer(path, long_passages={"strategy": "max", "window": 30})
    encoded = model.encode([LONG[0], PAIRS[0]])
    assert encoded.pairs["windows"].to_pylist()[1] == 1
    first, *others = encoded.sequences.to_pylist()[:-1]
    length, rest = encoded.inputs["query_length"][0].as_py(), encoded.inputs["prompt_length"][0].as_py()
    assert len(others) > 3
    assert all(other[:length] == first[:length] and other[-rest:] == first[-rest:] for other in others)
    once = distinct(encoded)
    assert (
        model.forward(encoded).scores[0] == model.model.forward(once.sequences, once.inputs).scores[:-1].max()
    )
    np.testing.assert_allclose(model.score([PAIRS[0]]), of_the_peer(path, [PAIRS[0]]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("template", [LIKE_MXBAI, PASSAGE_FIRST, CHATML])
@pytest.mark.parametrize("passage", ["The giant panda is a bear.", "  Ünï 🐼\n", "", "什么是大熊猫"])
def test_the_tokens_of_a_passage_lie_in_it(tmp_path: Path, template: str, passage: str) -> None:
    model = scorer(saved(tmp_path, "qwen2", template))
    offsets = model.encoder.passage_offsets("a panda", passage)
    assert len(offsets) == model.encode([("a panda", passage)]).pairs["passage_last"][0].as_py()
    covered = {place for first, stop in offsets for place in range(first, stop)}
    trimmed = passage.strip() if template is CHATML else passage
    begin = passage.index(trimmed)
    assert covered == set(range(begin, begin + len(trimmed)))


def test_encoders_of_other_limits_ask_the_template_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As requests to an endpoint set them: transformers' tokenizer takes seconds to load."""
    path, loads = saved(tmp_path, "qwen2", LIKE_MXBAI), []

    def counted(*given: Any, **options: Any) -> Any:
        loads.append(given)
        return auto_tokenizer(*given, **options)

    monkeypatch.setattr("pipeline.scoring.chat_template.auto_tokenizer", counted)
    model = scorer(path)
    lengths = [len(model.encode(LONG[:1], Limits(max_length=each)).sequences[0]) for each in (150, 160, 170)]
    assert (lengths, len(loads)) == ([150, 160, 170], 1)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ messages[0].content }} alone", "does not hold query and passage, once each"),
        (LIKE_MXBAI.replace("query: ", "query: {{ messages[-2].content }}"), "once each"),
        (LIKE_MXBAI.replace("| first }}\nIs", "| first | upper }}\nIs"), "does not hold|changes the texts"),
        (
            LIKE_MXBAI.replace("Is it", "{% if messages[-1].content | length > 99 %}Long. {% endif %}Is it"),
            "changes the texts of a pair, or what stands around them",
        ),
        ("{{ raise_exception('not for pairs') }}", "fails: not for pairs"),
    ],
)
def test_templates_that_are_no_frame_are_refused(tmp_path: Path, template: str, told: str) -> None:
    path = copied(saved(tmp_path, "qwen3", LIKE_MXBAI), tmp_path / "copy")
    (path / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=rf"its chat template .*({told})"):
        scorer(path).score(PAIRS)


@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        ("sentence_bert_config.json", {"modality_config": {}}, "has no chat template"),
        ("sentence_bert_config.json", {"transformer_task": "any-to-any"}, "transformer_task"),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"text": {"max_length": 9}}},
            "processing_kwargs",
        ),
        (
            "sentence_bert_config.json",
            {"processing_kwargs": {"chat_template": {"restore_suffix": False}}},
            "processing_kwargs",
        ),
        ("config_sentence_transformers.json", {"activation_fn": "torch.nn.modules.activation.Tanh"}, "Tanh"),
        ("1_LogitScore/config.json", {"module_input_name": "logits"}, "module_input_name"),
        ("1_LogitScore/config.json", {"true_token_id": 500}, "true_token_id: 500 is no token"),
        (
            "tokenizer_config.json",
            {"truncation_side": "left"},
            "truncation_side: is left, .* set it to right",
        ),
        ("config.json", {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]}, "model_type"),
        ("config.json", {"layer_types": ["sliding_attention"] * 3, "use_sliding_window": True}, "sliding"),
    ],
)
def test_what_is_not_honoured_is_refused(tmp_path: Path, file: str, fields: Any, told: str) -> None:
    path = saved(tmp_path, "qwen2", LIKE_MXBAI)
    edit(path / file, **fields)
    for side in ("right", "left"):
        with pytest.raises(ModelError, match=told):
            scorer(path, truncation_side=side)


def test_a_mistral_that_sees_near_tokens_alone_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, "mistral", LIKE_MXBAI)
    for window, shown in ((4096, "4096"), (..., "4096")):  # which is what transformers has where none is told
        edit(path / "config.json", sliding_window=window)
        with pytest.raises(ModelError, match=f"sliding_window: {shown} is not run here"):
            scorer(path)
