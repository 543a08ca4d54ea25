"""Which chat templates are taken for a frame around query and passage, and which are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ModelError
from pipeline.scoring import ScorerConfig
from pipeline.scoring.chat_template import pair_frame
from pipeline.scoring.checkpoint import find_checkpoint
from pipeline.scoring.frame_encoder import PairFrame
from pipeline.scoring.saved_modules import Saved
from pipeline.scoring.tokenizer_files import auto_tokenizer
from tests.scoring.checkpoints import copied
from tests.scoring.families.test_logit_score import CHATML, LIKE_MXBAI, PASSAGE_FIRST, saved

QUERY, PASSAGE = "messages[-2].content", "messages[-1].content"
PUT = f"Query: {{{{ {QUERY} }}}}\nPassage: {{{{ {PASSAGE} }}}}\nRelevant?"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("made"), "qwen2", PUT)


@pytest.fixture
def framed(made: Path, tmp_path: Path) -> Callable[..., PairFrame]:
    """The frame of a template."""

    def of(template: str, instruction: str | None = None) -> PairFrame:
        path = copied(made, tmp_path)
        (path / "chat_template.jinja").write_text(template)
        checkpoint = find_checkpoint(ScorerConfig(model=str(path)))
        return pair_frame(checkpoint, Saved.of(checkpoint), instruction)

    return of


@pytest.mark.parametrize("template", [PUT, LIKE_MXBAI, CHATML, PASSAGE_FIRST])
def test_templates_that_put_texts_in_their_places_are_frames(framed: Any, template: str) -> None:
    frame = framed(template)
    assert (frame.is_query_first, frame.strips) == (template is not PASSAGE_FIRST, template is CHATML)


@pytest.mark.parametrize("text", [QUERY, PASSAGE])
@pytest.mark.parametrize(
    "change",
    [
        "| lower",
        "| capitalize",
        "| escape",
        "| replace('\\r', '')",
        "| replace('\\t', ' ')",
        "| replace('  ', ' ')",
        "| replace('\\n\\n', '\\n')",
        "| replace('<|im_end|>', '')",
        "| replace('<|endoftext|>', '')",
        "| replace('<think>', '')",
        "| replace('Passage: ', '')",
        "| replace('\\\\', '/')",
        "| tojson",
        ".strip('\\n ')",
        ".rstrip()",
        "[:200]",
        "[:8192]",
        "[-50000:]",
        ".split('</think>')[-1]",
        " ~ (' (long)' if messages[-1].content | length > 9000 else '')",
        " ~ (' (short)' if messages[-2].content | length < 9000 else '')",
    ],
)
def test_templates_that_change_a_text_are_refused(framed: Any, text: str, change: str) -> None:
    with pytest.raises(ModelError, match="its chat template (changes the texts|does not hold)"):
        framed(PUT.replace(text, f"{text}{change}"))


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("{{ strftime_now('%d %b %Y') }}", r"fails: it asks for the date \(strftime_now\)"),
        (
            "{% if strftime_now is defined %}{% set day = strftime_now('%d') %}{% endif %}",
            "fails: it asks for the date",
        ),
        ("{{ messages | map(attribute='role') }}", "writes an address in memory"),
        ("{{ range }}{{ raise_exception }}", "writes an address in memory"),
        ("{{ [1, 2, 3, 4] | random }}", "changes the texts of a pair, or what stands around them"),
        ("{{ lipsum() }}", "changes the texts of a pair, or what stands around them"),
    ],
)
def test_templates_that_differ_from_day_to_day_or_by_process_are_refused(
    framed: Any, says: str, told: str
) -> None:
    with pytest.raises(ModelError, match=f"its chat template {told}"):
        framed(says + PUT)


def test_a_date_that_is_not_asked_for_is_none(framed: Any) -> None:
    template = "{% if not day %}{% set day = strftime_now('%d') %}{% endif %}{{ day }} "
    assert framed("{% set day = 'Monday' %}" + template + PUT).before == "Monday Query: "


@pytest.mark.parametrize(
    "begins", ["", "\n", "\n\n", "  ", "  \n", "  {% if true %}\n", "{%- if true %}  ", "{{ '\n' }}\n"]
)
def test_a_template_begins_as_it_does_elsewhere(framed: Any, made: Path, begins: str) -> None:
    template = begins + PUT + ("{% endif %}" if "if" in begins else "")
    messages = [{"role": "query", "content": "a"}, {"role": "document", "content": "b"}]
    tokenizer = auto_tokenizer(made, trust_remote_code=False)
    elsewhere = tokenizer.apply_chat_template(messages, tokenize=False, chat_template=template)
    assert framed(template).text("a", "b")[0] == elsewhere
