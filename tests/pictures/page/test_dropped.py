"""Which words of a source fall: as the models themselves decide it; and what text those words are."""

from __future__ import annotations

from argparse import Namespace

import pytest
import torch

from fairseq_switchdec.generation.run_settings import source_settings
from fairseq_switchdec.models.causal.prompt import PromptFormat
from fairseq_switchdec.models.causal.stack import PromptEncoder
from fairseq_switchdec.pictures.page.dropped import DROPPED, KEPT, PARTLY, UNREAD, SourceRule, as_they_are, spans
from fairseq_switchdec.tokens import kept_tokens


@pytest.mark.parametrize("strategy", range(7))
def test_states_are_the_encoders(switchable, strategy: int) -> None:
    words = torch.arange(4, 17)
    source = torch.cat([words, torch.tensor([2])]).unsqueeze(0)
    decided = switchable.encoder.space.keep_all(1)
    decided.token_strategy[0] = strategy
    kept = switchable.encoder.kept_tokens(source, decided)[0, :-1].tolist()
    first, last = switchable.encoder.droppable_ends
    states = SourceRule(first=first, last=last).states(len(words), strategy)
    assert states == [KEPT if keep else DROPPED for keep in kept]
    assert (DROPPED in states) == (strategy > 0)


@pytest.mark.parametrize("prefix, suffix", [((), ()), ((7,), ()), ((), (8, 9)), ((7, 7), (8,))])
@pytest.mark.parametrize("count", [0, 1, 2, 9, 12, 15])
def test_states_are_those_of_a_prompt(prefix: tuple[int, ...], suffix: tuple[int, ...], count: int) -> None:
    """Whose first and last token always stay, and whose article is cut to 12 words."""
    form = PromptFormat(prefix, suffix, room=12, start=0, end=2, padding=1)
    prompts = form(torch.tensor([[*range(20, 20 + count), 2]]))
    first, last = PromptEncoder.droppable_ends.fget(type("Encoder", (), {"prompts": form}))
    rule = SourceRule(12, first, last)
    for strategy in range(7):
        kept = kept_tokens(prompts.article, prompts.read & ~prompts.article, torch.tensor([strategy]))[0]
        gone = {int(token) for token in prompts.tokens[0][prompts.article[0] & ~kept]}
        states = rule.states(count, strategy)
        assert len(states) == count and states.count(UNREAD) == max(count - 12, 0)
        assert {20 + place for place, state in enumerate(states) if state == DROPPED} == gone
    assert len(rule.droppable(count)) == int(prompts.article.sum())


def test_a_run_says_how_it_read_its_sources(switchable) -> None:
    cut, whole = (Namespace(truncate_source=cut, max_source_positions=64) for cut in (True, False))
    assert source_settings(switchable, cut) == {"limit": 63, "first": True, "last": True}  # and </s>
    assert source_settings(switchable, whole)["limit"] is None


def test_a_report_says_how_its_sources_were_read() -> None:
    assert SourceRule.of({"source": {"limit": 5, "first": False, "last": True}}) == SourceRule(5, False, True)
    assert SourceRule.of({}) == SourceRule.of({"source": None}) == SourceRule(None, True, True)


# --- text ---


def from_bytes(words: str) -> str:
    """As byte-level BPEs do it: words are bytes in hexadecimal."""
    return bytes.fromhex(words).decode("utf-8", "replace")


def from_marks(words: str) -> str:
    """As fastbpe does it."""
    return (words + " ").replace("@@ ", "").rstrip()


def from_pieces(words: str) -> str:
    """As sentencepiece does it: without the first space."""
    return words.replace(" ", "").replace("\u2581", " ").strip()


def test_text_without_a_bpe() -> None:
    found = spans("a bb c d".split(), [KEPT, DROPPED, DROPPED, KEPT], as_they_are)
    assert found == [(KEPT, "a"), (DROPPED, " bb c"), (KEPT, " d")]


def test_text_of_marked_words() -> None:
    found = spans("un@@ know@@ n thing s@@".split(), [KEPT, DROPPED, KEPT, KEPT, DROPPED], from_marks)
    assert [state for state, _ in found] == [KEPT, DROPPED, KEPT, DROPPED]
    assert "".join(text for _, text in found) == from_marks("un@@ know@@ n thing s@@")
    assert found[1] == (DROPPED, "know")


def test_text_of_pieces_that_carry_their_space() -> None:
    found = spans("\u2581The \u2581cat s \u2581sat".split(), [KEPT, DROPPED, KEPT, DROPPED], from_pieces)
    assert found == [(KEPT, "The"), (DROPPED, " cat"), (KEPT, "s"), (DROPPED, " sat")]


def test_a_character_of_several_words_is_marked_as_one() -> None:
    words = [f"{byte:02x}" for byte in "aé😀b".encode()]
    states = [KEPT, DROPPED, DROPPED, KEPT, DROPPED, KEPT, DROPPED, KEPT]
    assert spans(words, states, from_bytes) == [(KEPT, "a"), (DROPPED, "é"), (PARTLY, "😀"), (KEPT, "b")]


def test_bytes_that_are_no_character_do_not_hide_the_rest() -> None:
    words = ["ff"] * 40 + ["61", "62", "c3"]  # as of a text that was cut within a character
    states = [KEPT] * 40 + [DROPPED, KEPT, DROPPED]
    found = spans(words, states, from_bytes)
    assert "".join(text for _, text in found) == "\ufffd" * 40 + "ab\ufffd"
    assert found[-2:] == [(KEPT, "b"), (DROPPED, "\ufffd")]


@pytest.mark.parametrize("words", ["61 zz 62", "61 6 2"])
def test_words_that_the_bpe_refuses_are_shown_as_they_are(words: str) -> None:
    found = spans(words.split(), [KEPT, DROPPED, KEPT], from_bytes)
    assert "".join(text for _, text in found) == words
    assert [state for state, _ in found] == [KEPT, DROPPED, KEPT]


def test_a_decoder_that_changes_its_mind_is_not_believed() -> None:
    words = "a b c".split()
    found = spans(words, [KEPT, DROPPED, KEPT], lambda text: f"{len(text)} {text}")
    assert found == [(KEPT, "a"), (DROPPED, " b"), (KEPT, " c")]


def test_a_long_source_takes_time_in_proportion() -> None:
    """A million words that no decoder makes text of must not be read again for each of them."""
    calls = []

    def nothing(words: str) -> str:
        calls.append(len(words))
        return ""

    words = ["x"] * 10_000
    spans(words, [KEPT, DROPPED] * 5_000, nothing)
    assert sum(calls) < 100_000


def test_a_character_at_the_cut_was_not_read() -> None:
    """Nothing was dropped, so nothing may be struck through."""
    texts = {"a b": "x\ufffd", "a b c": "x\u20ac", "b c": "\u20ac"}
    found = spans(
        "a b c".split(), [KEPT, KEPT, UNREAD], lambda words: texts.get(words, "x" if words == "a" else "\ufffd")
    )
    assert found == [(KEPT, "x"), (UNREAD, "\u20ac")]


def test_what_was_not_read_is_decoded_at_once() -> None:
    calls = []

    def decode(words: str) -> str:
        calls.append(words)
        return words.replace(" ", "")

    words, states = ["ab"] * 5000, [KEPT, DROPPED] * 10 + [UNREAD] * 4980
    found = spans(words, states, decode)
    assert "".join(text for _, text in found) == "ab" * 5000 and found[-1] == (UNREAD, "ab" * 4980)
    assert found[:-1] == [(KEPT, "ab"), (DROPPED, "ab")] * 10 and len(calls) < 100
