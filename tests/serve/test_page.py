"""The page at / in a real browser, over real models."""

import json
import shlex
from pathlib import Path

import httpx2
import page_screenshot
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.conftest import MINILM, TINY
from tests.serve.browser import browser, opened
from tests.serve.local import LocalServer, serving
from tests.serve.page_steps import PASSAGES, as_shown, asked, fill, page, rank, sample, shown_score

__all__ = ["browser", "page"]  # fixtures


@pytest.mark.parametrize("name", ["English", "Chinese"])
def test_the_sample_is_ranked_with_the_servers_scores_and_its_moves(
    page: Page, client: httpx2.Client, name: str
) -> None:
    query, passages = sample(page, name)
    entries = rank(page)
    expected = asked(client, query, passages)
    assert [shown_score(entry) for entry in entries] == as_shown(expected)
    for entry, known in zip(entries, expected, strict=True):
        old, new = known["index"] + 1, known["rank"]
        by = f"{'▲' if new < old else '▼'} {abs(new - old)}" if new != old else "="
        expect(entry.locator(".moved > :first-child")).to_have_text(by)
        expect(entry.locator(".places")).to_have_text(f"{old} → {new}")
        expect(entry).to_contain_text(passages[known["index"]][:40])
    expect(page.locator(".facts")).to_contain_text("Model" + "tiny")


def test_the_sample_is_there_at_first_sight(page: Page) -> None:
    expect(page.locator("#count")).to_have_text("8 passages")
    assert len(rank(page)) == 8
    list_ends = page.get_by_role("list", name="Ranking").evaluate(
        "list => list.getBoundingClientRect().bottom"
    )
    assert page.locator(".facts").evaluate("facts => facts.getBoundingClientRect().top") >= list_ends


def test_two_models_stand_side_by_side(page: Page, client: httpx2.Client) -> None:
    fill(page, "panda", "\n".join(PASSAGES))
    page.get_by_label("Beside it").select_option("layers")
    rank(page)
    for model in ("tiny", "layers"):
        entries = page.get_by_role("list", name=f"Ranking by {model}").get_by_role("listitem").all()
        assert [shown_score(entry) for entry in entries] == as_shown(
            asked(client, "panda", PASSAGES, model=model)
        )
    page.get_by_label("Beside it").select_option("")
    rank(page)
    expect(page.get_by_role("list", name="Ranking by")).to_have_count(0)


def test_the_request_is_told_as_curl(page: Page, client: httpx2.Client) -> None:
    fill(page, "what's a panda?", "\n".join(PASSAGES))
    rank(page)
    page.get_by_text("As curl").click()
    command, *_ = page.locator("#curl").inner_text().splitlines()
    assert command == f"curl {client.base_url.join('/rank')} \\"
    words = shlex.split(page.locator("#curl").inner_text())
    given = json.loads(words[words.index("-d") + 1])
    known = asked(client, **given)
    assert [shown_score(entry) for entry in rank(page)] == as_shown(known)
    page.context.grant_permissions(["clipboard-write", "clipboard-read"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#curl").text_content()


def test_what_the_model_did_not_read_is_marked(page: Page, client: httpx2.Client) -> None:
    query, passages = sample(page)
    known = next(entry for entry in asked(client, query, passages) if entry["passage_cut"])
    entry = rank(page)[known["rank"] - 1]
    expect(entry.locator(".cut")).to_contain_text(f"{known['passage_cut']:,} tokens not read")
    assert unfolded(entry, ".unread") == squeezed(passages[known["index"]][known["last_character"] :])
    assert unfolded(entry, ".text").startswith(squeezed(passages[known["index"]][: known["last_character"]]))


def test_emoji_are_one_character_as_for_the_server(page: Page, client: httpx2.Client) -> None:
    passage = "😀 smile 👍🏽 " * 300
    fill(page, "smile", passage)
    (known,) = asked(client, "smile", [passage.strip()])
    assert 0 < known["last_character"] < len(passage) - 10
    assert unfolded(rank(page)[0], ".unread") == squeezed(passage[known["last_character"] :])


def unfolded(entry: Locator, part: str) -> str:
    """All its text but the marks, without blanks."""
    while entry.locator("button").count():
        entry.locator("button").first.click()
    entry.evaluate("entry => entry.querySelectorAll('.cut').forEach(mark => mark.hidden = true)")
    return squeezed(entry.locator(part).inner_text())


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_a_query_that_was_cut_says_by_how_much(page: Page, client: httpx2.Client) -> None:
    query = "what is a panda " * 200
    (known,) = asked(client, query.strip(), ["hi"])
    fill(page, query, "hi")
    rank(page)
    expect(page.locator("#asked .cut")).to_contain_text(f"{known['query_cut']:,} tokens not read")


def test_model_and_cutoff_layer_can_be_chosen(page: Page, client: httpx2.Client) -> None:
    fill(page, "panda", "\n".join(PASSAGES))
    layers = page.get_by_label("Cutoff layer")
    expect(layers).to_be_hidden()
    page.get_by_label("Model").select_option("layers")
    expect(layers).to_have_value("4")
    layers.select_option("2")
    expected = asked(client, "panda", PASSAGES, model="layers", cutoff_layer=2)
    assert [shown_score(entry) for entry in rank(page)] == as_shown(expected)
    expect(page.locator(".facts")).to_contain_text("Cutoff layer" + "2")
    page.get_by_label("Model").select_option("tiny")
    expect(layers).to_be_hidden()
    assert [shown_score(entry) for entry in rank(page)] == as_shown(asked(client, "panda", PASSAGES))


def test_the_best_n_with_a_sigmoid(page: Page, client: httpx2.Client) -> None:
    fill(page, "panda", "\n".join(PASSAGES))
    page.get_by_label("Top n").fill("2")
    page.get_by_label("sigmoid").check()
    expected = asked(client, "panda", PASSAGES, top_k=2, normalize=True)
    assert [shown_score(entry) for entry in rank(page)] == as_shown(expected)
    expect(page.locator("#status")).to_contain_text("Best 2 of 4 passages")


def test_where_a_sigmoid_changes_nothing_it_is_said(browser: Browser) -> None:
    """The server tells with an answer: the API's process holds no model."""
    with (
        serving({"cosines": {"model": MINILM}, "tiny": {"model": TINY}}) as server,
        opened(browser, server.url) as page,
    ):
        page.get_by_label("sigmoid").check()
        fill(page, "panda", "\n".join(PASSAGES))
        page.get_by_label("Beside it").select_option("tiny")
        rank(page)
        facts = page.locator(".facts")
        expect(facts.nth(0)).to_contain_text("Scores" + "raw, since this model gives no logits")
        expect(facts.nth(1)).to_contain_text("Scores" + "sigmoid")


def test_the_menu_has_the_models_with_their_aliases(browser: Browser) -> None:
    models = {
        "tiny": {"scorer": {"model": TINY}, "aliases": ["rerank-v3.5", "other"]},
        "plain": {"model": TINY},
    }
    with serving(models) as server, opened(browser, server.url) as page:
        options = page.get_by_label("Model").locator("option")
        expect(options).to_have_text(["tiny (rerank-v3.5, other)", "plain"])
        fill(page, "panda", "\n".join(PASSAGES))
        assert len(rank(page)) == len(PASSAGES)


def test_bars_start_at_zero(page: Page) -> None:
    fill(page, "panda", "\n".join(PASSAGES))
    for normalize in (False, True):
        page.get_by_label("sigmoid").set_checked(normalize)
        entries = rank(page)
        scores = [shown_score(entry) for entry in entries]
        low = min(0, *scores)
        high = max(0, *scores) if low < 0 or max(scores) > 1 else 1
        for entry, score in zip(entries, scores, strict=True):
            share = entry.locator(".bar span").evaluate("fill => parseFloat(fill.style.width)")
            assert share == pytest.approx(abs(score) / (high - low) * 100, abs=0.1)


def test_passages_may_be_paragraphs(page: Page) -> None:
    fill(page, "panda", "one\ntwo\n \n<b>three</b>\n\n\nfour\n")
    expect(page.locator("#count")).to_have_text("4 passages")
    page.get_by_label("paragraph").check()
    expect(page.locator("#count")).to_have_text("3 passages")
    texts = [entry.locator(".text").inner_text() for entry in rank(page)]
    assert sorted(texts) == ["<b>three</b>", "four", "one\ntwo"]


def test_the_sample_replaces_no_text_unasked(page: Page) -> None:
    fill(page, "panda", "mine")
    page.once("dialog", lambda dialog: dialog.dismiss())
    assert sample(page) == ("panda", ["mine"])


def test_the_readmes_picture_can_be_made(browser: Browser, server: LocalServer, tmp_path: Path) -> None:
    page_screenshot.save(browser, server.url, tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
