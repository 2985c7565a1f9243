"""Byte-level BPE with characters: every token stands for the right ones, whatever the text."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from fairseq.data import Dictionary
from fairseq.data.encoders.gpt2_bpe_utils import get_encoder
from squad_support import load_dictionary, write_bpe

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.squad.examples import Problems, read_questions
from fairseq_switchdec.squad.tokens import LONGEST_PIECE, OffsetBPE
from fairseq_switchdec.squad.windows import WindowOptions, cut_windows

TEXTS = [
    'the café is "new"), isn\'t it?',
    "  two spaces,\n\na\ttab   ",
    "漢字 and 😀😀, a\u0301 combining",
    "",
    "\ud800 half a pair",
    "x" * (3 * LONGEST_PIECE + 7),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bpe(tmp_path_factory.mktemp("bpe"))


@pytest.fixture(scope="module")
def bpe(folder: Path) -> OffsetBPE:
    return OffsetBPE(str(folder / "encoder.json"), str(folder / "vocab.bpe"), load_dictionary(folder))


def decoded(bpe: OffsetBPE, ids: list[int]) -> str:
    """The text of some ids, by fairseq's own decoder."""
    back = {number: token for token, number in bpe.ids.items()}
    data = bytes(bpe.bpe.byte_decoder[char] for number in ids for char in back[number])
    return data.decode("utf-8", errors="surrogatepass")


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_spell_the_text_and_stand_for_its_characters(bpe: OffsetBPE, text: str) -> None:
    tokens = bpe.encode(text)
    assert decoded(bpe, tokens.ids.tolist()) == text
    assert bpe.unknown not in tokens.ids
    assert all(0 <= start < end <= len(text) for start, end in zip(tokens.starts, tokens.ends))
    covered = {place for start, end in zip(tokens.starts, tokens.ends) for place in range(start, end)}
    assert all(text[place].isspace() for place in set(range(len(text))) - covered)
    assert sorted(tokens.starts) == tokens.starts.tolist() and sorted(tokens.ends) == tokens.ends.tolist()


def test_by_hand(bpe: OffsetBPE) -> None:
    tokens = bpe.encode("the 😀 is")
    # "the", " ", four bytes of the face, " " joined with nothing, "is"
    assert list(zip(tokens.starts.tolist(), tokens.ends.tolist())) == [
        (0, 3), (3, 4), (4, 5), (4, 5), (4, 5), (4, 5), (5, 6), (6, 8),
    ]  # fmt: skip
    assert tokens.span(4, 5) == (2, 5) and tokens.characters(2, 5) == (4, 5)
    assert tokens.span(6, 8) == (7, 7) and tokens.characters(0, 7) == (0, 8)


def test_a_space_before_a_word_is_not_its_character(bpe: OffsetBPE) -> None:
    tokens = bpe.encode("is the an")
    assert len(tokens) == 3 and tokens.starts.tolist() == [0, 3, 7]
    assert tokens.span(2, 3) is None and tokens.span(9, 9) is None


def test_punctuation_is_cut_so_that_an_answer_may_end_inside_it(bpe: OffsetBPE) -> None:
    text = 'the ("is"), an'
    assert '"),' in bpe.ids  # one token, if it were not cut
    for answer in ("is", '"is"', '("is")', 'the ("is")'):
        start = text.index(answer)
        span = bpe.encode(text).span(start, start + len(answer))
        assert span is not None
        first, last = bpe.encode(text).characters(*span)
        assert text[first:last] == answer


def test_where_nothing_is_cut_the_ids_are_fairseqs(bpe: OffsetBPE, folder: Path) -> None:
    own = get_encoder(str(folder / "encoder.json"), str(folder / "vocab.bpe"))
    dictionary = load_dictionary(folder)
    text = "the café is an isle. 12 thean, and 漢字?"
    assert bpe.encode(text).ids.tolist() == [dictionary.index(str(number)) for number in own.encode(text)]


def test_random_spans_come_back_where_they_fall_between_tokens(bpe: OffsetBPE) -> None:
    rng = random.Random(3)
    for _ in range(200):
        text = "".join(rng.choice('the an is é😀(),." 12') for _ in range(40))
        tokens = bpe.encode(text)
        first = rng.randrange(len(tokens))
        last = rng.randrange(first, len(tokens))
        start, end = tokens.characters(first, last)
        span = tokens.span(start, end)
        assert span is not None and tokens.characters(*span) == (start, end)


def test_files_that_are_no_bpe(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="--gpt2-encoder-json and --gpt2-vocab-bpe"):
        OffsetBPE(str(tmp_path / "absent"), str(folder / "vocab.bpe"), Dictionary())
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(UserError, match="--gpt2-encoder-json"):
        OffsetBPE(str(tmp_path / "bad.json"), str(folder / "vocab.bpe"), Dictionary())
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(UserError, match="no table of tokens"):
        OffsetBPE(str(tmp_path / "list.json"), str(folder / "vocab.bpe"), Dictionary())


def test_every_gold_answer_of_squad(shared_data: Path) -> None:
    """10,570 questions, 34,726 answers: at least 99.5 % come back exactly; the others begin or end inside a word."""
    files = shared_data / "tokenizer" / "gpt2_bpe"
    dictionary = Dictionary.load(str(files / "dict.txt"))
    bpe = OffsetBPE(str(files / "encoder.json"), str(files / "vocab.bpe"), dictionary)
    path = str(shared_data / "squad" / "dev-v1.1.json.gz")
    counts: Counter[str] = Counter()
    context = tokens = None
    for question in read_questions(path, Problems(path, strict=True)):
        text = question.context
        if text is not context:
            context, tokens = text, bpe.encode(text)
        assert tokens is not None
        windows = cut_windows(len(tokens), len(bpe.encode(question.text)), WindowOptions())
        counts["questions"] += 1
        for answer in question.answers:
            counts["answers"] += 1
            end = answer.start + len(answer.text)
            span = tokens.span(answer.start, end)
            assert span is not None
            start_there, end_there = tokens.characters(*span)
            holds = [w for w in windows if w.best_begin <= span[0] < w.best_end and span[1] < w.end]
            if text[start_there:end_there] == answer.text and holds:
                counts["exact"] += 1
            else:  # the only reason there is
                inside = [place for place in (answer.start, end) if text[place - 1 : place + 1].isalnum()]
                assert inside and len(holds) == 1
                counts["inside a word"] += 1
    assert counts["questions"] == 10_570 and counts["exact"] + counts["inside a word"] == counts["answers"] == 34_726
    assert counts["exact"] >= 0.995 * counts["answers"]
