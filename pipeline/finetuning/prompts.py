"""What stood around query and passage in training, told for whoever scores: a checkpoint does not hold it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping

from pipeline.finetuning.checked_row import PROMPTS
from pipeline.finetuning.sampling import Row
from pipeline.finetuning.student import OPTIONS
from pipeline.scoring import ScorerConfig

_KNOWN, _SHOWN = 1000, 3
"""How many texts of a kind are counted one by one, and how many are told."""
_FORMATS = {
    "query_instruction_for_rerank": "query_instruction_format",
    "passage_instruction_for_rerank": "passage_instruction_format",
}


class RowPrompts:
    """The prompts that rows have of their own."""

    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        """How many rows have one, by its name."""
        self._texts: dict[str, Counter[str]] = {name: Counter() for name in PROMPTS}
        """Of the first `_KNOWN` texts, how many rows have each: there may be as many texts as rows."""

    def add(self, row: Row) -> None:
        for name, texts in self._texts.items():
            text = getattr(row, name)
            if text is not None:
                self.rows[name] += 1
                if text in texts or len(texts) < _KNOWN:
                    texts[text] += 1

    def told(self, rows: int, scorer: ScorerConfig, ignored: Mapping[str, str]) -> Iterator[str]:
        """A line for each option of the scorer that was not as it is by default, of all `rows`.

        ignored: the prompts of rows that don't count, and why (`GroupEncoder.ignored`).
        """
        for name, option in OPTIONS.items():
            own, given = self.rows[name], getattr(scorer, option)
            if name in ignored:
                if own:
                    yield f"- the `{name}` of {own} rows was ignored: {ignored[name]}"
                continue
            if not own and given is None:
                continue
            parts = [
                f"{_quoted(text)} in {count} rows, which have it as `{name}`"
                for text, count in self._texts[name].most_common(_SHOWN)
            ]
            others = own - sum(count for _, count in self._texts[name].most_common(_SHOWN))
            parts += [f"others in {others} rows"] if others else []
            if rows > own:
                text = "not set" if given is None else _quoted(given)
                parts.append(f"{text} in {rows - own if own else 'all'} rows")
            yield f"- `{option}`: {'; '.join(parts)}"
            if option in _FORMATS:
                yield f"- `{_FORMATS[option]}`: {_quoted(getattr(scorer, _FORMATS[option]))}"


def _quoted(text: str) -> str:
    return f"`{json.dumps(text, ensure_ascii=False)}`"
