"""How a checkpoint's chat template puts a pair: which fixed texts stand around query and passage.

Messages are those of sentence_transformers 6.2 (base/modality.py): the roles `query` and `document`, and
before them `system` where there is an instruction. A template is a program. What it does is found by
rendering, and one that does more with a text than to put it in its place is refused.
"""

import re

from pipeline.errors import ConfigError, ModelError
from pipeline.scoring.checkpoint import Checkpoint
from pipeline.scoring.frame_encoder import PairFrame
from pipeline.scoring.saved_modules import Saved
from pipeline.scoring.tokenizer_files import auto_tokenizer

_QUERY, _PASSAGE, _INSTRUCTION = "\ue000query\ue001", "\ue000passage\ue001", "\ue000instruction\ue001"
QWEN3_TASK = "Judge whether the Document meets the requirements based on the Query and the Instruct provided."
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")
"""In what Python writes for a function, or for a filter whose result is no list yet."""
_NO_DATES = (
    "{% macro strftime_now(format) %}"
    "{{ raise_exception('it asks for the date (strftime_now): scores would change from day to day; write one"
    " into it') }}{% endmacro %}\n"
)
"""Stands before a template: its macro takes the place of transformers' function of that name. The line's end
is left out, as behind every `%}`."""
_BLANKS = "\u3000 a text\t \xa0\r\n"
_PROBES = (
    "",
    " \n",
    "42",
    _BLANKS,
    """What  is\ta <b>PANDA</b> & "it's"\r\n\r\n\n  1. {{ two }}, {% if %} {# no #} C:\\new\\\\ ` * _ ~?""",
    "ÄÖ Ⅷ ﬁ 什么是大熊猫 🐼 e\u0301",
    "<tool_response> <think>a</think> [INST] b [/INST] <s> <|user|> </s> <0x0A> <unk> </tool_response>",
    "Far too Long, " * 7_200,
)
"""What templates change: cases, blanks, line ends, quotes, signs of markup and of chats, and what is long."""

_SIGNS_OF_PARTS = ("content[0]", "message.content[", ".type", "'type'", '"type"')


def asks_as_qwen3(checkpoint: Checkpoint) -> bool:
    """Whether it is a Qwen3-Reranker that sentence-transformers saved: by the words of its chat template, or
    since no file says how a pair is put.
    """
    if checkpoint.architecture != "Qwen3ForCausalLM":
        return False
    modalities = Saved.of(checkpoint).modalities
    if "message" not in modalities:
        return not modalities
    file = checkpoint.path / "chat_template.jinja"
    template = file.read_text(errors="replace") if file.is_file() else ""
    return QWEN3_TASK in template + str(checkpoint.tokenizer_config.fields.get("chat_template"))


def check_chats(checkpoint: Checkpoint, saved: Saved) -> None:
    """Raises ModelError where sentence-transformers puts no pair by a chat template: it tokenizes the two
    texts alone then.
    """
    if "message" not in saved.modalities:
        raise ModelError(
            f"{checkpoint.name}: has no chat template (`message` in the modality_config of"
            " sentence_bert_config.json), which would put pairs together"
        )


def pair_frame(checkpoint: Checkpoint, saved: Saved, instruction: str | None) -> PairFrame:
    """instruction: what the message `system` says; null for none.

    Raises ModelError where there is no template, or it does not put pairs as a frame does; ConfigError where
    it has no place for an instruction that is not the checkpoint's own.
    """
    key = "frame", instruction
    if key not in checkpoint.shared:  # transformers' tokenizer, which finds it out, loads in seconds
        checkpoint.shared[key] = _found_out(checkpoint, saved, instruction)
    frame: PairFrame = checkpoint.shared[key]
    return frame


def _found_out(checkpoint: Checkpoint, saved: Saved, instruction: str | None) -> PairFrame:
    render = _Template(checkpoint, saved)
    whole = render(_QUERY, _PASSAGE, instruction)
    if whole.count(_QUERY) != 1 or whole.count(_PASSAGE) != 1:
        raise _refused(checkpoint, "does not hold query and passage, once each, as messages of these roles")
    is_query_first = whole.index(_QUERY) < whole.index(_PASSAGE)
    first, second = (_QUERY, _PASSAGE) if is_query_first else (_PASSAGE, _QUERY)
    before, _, rest = whole.partition(first)
    between, _, after = rest.partition(second)
    if _ADDRESS.search(before + between + after):
        raise _refused(checkpoint, "writes an address in memory: scores would change from process to process")
    frame = PairFrame(before, between, after, is_query_first, strips=False)
    if render(_BLANKS, _BLANKS, instruction) != frame.text(_BLANKS, _BLANKS)[0]:
        frame = frame._replace(strips=True)
    # Its own words, too, which it may look for in texts.
    texts = (*_PROBES, f"{before} {between} {after}", " ".join(render.words))
    pairs = [pair for text in texts for pair in ((text, _PASSAGE), (_QUERY, text), (text, text))]
    if any(render(*pair, instruction) != frame.text(*pair)[0] for pair in pairs):
        raise _refused(checkpoint, "changes the texts of a pair, or what stands around them")
    # The checkpoint's own is passed over in silence there, as in sentence-transformers.
    asked = instruction not in (None, saved.default_prompt)
    if asked and _INSTRUCTION not in render(_QUERY, _PASSAGE, _INSTRUCTION):
        raise ConfigError(
            f"query_instruction_for_rerank: the chat template of {checkpoint.name} has no place for one",
            field="query_instruction_for_rerank",
        )
    return frame


class _Template:
    """Renders a pair. Messages hold texts, or lists of parts: as the checkpoint's files say, or as
    sentence-transformers reads it off the template (_infer_format in base/modality.py).
    """

    def __init__(self, checkpoint: Checkpoint, saved: Saved) -> None:
        self._checkpoint = checkpoint
        self._made = auto_tokenizer(checkpoint.path, trust_remote_code=checkpoint.trust_remote_code)
        if not self._made.chat_template:
            raise ModelError(
                f"{checkpoint.name}: has no chat template (chat_template.jinja), which would put pairs"
                " together"
            )
        self._options = saved.chat_options
        message = saved.modalities.get("message")
        told = message.get("format") if isinstance(message, dict) else None
        self._in_parts = told == "structured"
        if told not in ("flat", "structured"):
            template = self._made.chat_template
            # Several templates, by name, are no text.
            self._in_parts = not isinstance(template, str) or any(
                sign in template for sign in _SIGNS_OF_PARTS
            )

    @property
    def words(self) -> list[str]:
        """The tokenizer's own, that no text is parted into: those of a chat among them."""
        return sorted(self._made.get_added_vocab())

    def __call__(self, query: str, passage: str, instruction: str | None) -> str:
        texts = [("query", query), ("document", passage)]
        if instruction is not None:
            texts.insert(0, ("system", instruction))
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if self._in_parts else text}
            for role, text in texts
        ]
        try:
            chosen = self._made.get_chat_template(
                self._options.get("chat_template"), self._options.get("tools")
            )
            options = {**self._options, "chat_template": _NO_DATES + chosen}
            return str(self._made.apply_chat_template(messages, tokenize=False, **options))
        except Exception as error:  # a template is a program, and fails as such
            raise _refused(self._checkpoint, f"fails: {error}") from error


def _refused(checkpoint: Checkpoint, what: str) -> ModelError:
    return ModelError(f"{checkpoint.name}: its chat template {what}")
