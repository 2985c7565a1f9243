"""Splits a summary or an article into sentences, with rules alone: no model, no download.

ROUGE-L as summarization papers report it compares sentence by sentence, and Lead-3 is an article's first three. Two
kinds of text come: plain ones ("He left. She stayed.") and tokenized ones ("he left . she stayed ."), cased or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

#: A full stop, question or exclamation mark before a blank, with the quotes and brackets that close behind it.
MARK = re.compile(r"""(?P<detached>(?<=\s))?(?P<mark>[.!?…]+)["'\u201d\u2019\u00bb)\]]*(?=\s)""")
WORD_BEFORE = re.compile(r"[^\s\"'\u201c\u2018(\[\u00ab`]*$")
WORD_AFTER = re.compile(r"\w+")

#: Names follow these, so their full stop ends no sentence.
TITLES = frozenset(
    "mr mrs ms dr prof st gen sen rep gov lt col sgt capt cmdr cpl pvt maj adm rev hon messrs mt ft pres supt vs "
    "fig eq sec no nos vol pp al e.g i.e cf approx dept est".split()
)
#: These may end a sentence or stand within one.
ABBREVIATIONS = frozenset(
    "inc co corp ltd bros jr sr etc ph.d m.d a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec ave blvd".split()
)
#: U.S, p.m, J
INITIALS = re.compile(r"(?:\w\.)*[^\W\d_]")
#: A capitalized word that begins a sentence more often than it goes on with a name.
STARTERS = frozenset(
    "the a an he she it they we you i his her its their our my this that these those there here but and or so yet if "
    "when while after before since because although though as at by for from in on to with what who where why how not "
    "no some many most all both each one two three more other however meanwhile now then police officials".split()
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without surrounding blanks; newlines in it are taken as sentence ends, and no other.

    Joined by single blanks they are the text again. Text without any letter or digit is no sentence of its own.
    """
    if "\n" in text:
        return [line.strip() for line in text.split("\n") if line.strip()]
    return list(iterate_sentences(" ".join(text.split())))


def one_sentence_a_line(text: str) -> str:
    """The form in which ``rouge-score`` takes a summary for its summary-level ROUGE-L."""
    return "\n".join(split_sentences(text))


def lead(article: str, sentences: int = 3) -> str:
    """The first sentences of an article: the Lead-3 baseline of Table 3."""
    return " ".join(islice(iterate_sentences(" ".join(article.split())), sentences))


def iterate_sentences(text: str) -> Iterator[str]:
    """The sentences of a text with single blanks, one by one."""
    cased = text != text.lower()
    start = 0
    for match in MARK.finditer(text):
        rest = text[match.end() + 1 : match.end() + 80]
        if ends_sentence(match, text[start : match.start()], rest, cased) and re.search(
            r"\w", text[start : match.end()]
        ):
            yield text[start : match.end()]
            start = match.end() + 1
    if text[start:].strip():
        yield text[start:]


def ends_sentence(match: re.Match[str], before: str, after: str, cased: bool) -> bool:
    """Whether a mark between two pieces of text ends the first.

    Args:
        before: the sentence up to the mark.
        after: what follows the blank behind the mark.
        cased: the text has capitals, so a sentence begins with one.
    """
    following = WORD_AFTER.search(after)
    if following is None:
        return False
    if match["detached"] is not None and match["mark"] == ".":  # a tokenizer has taken abbreviations into account
        return True
    if cased and following[0][0].islower():
        return False
    if match["mark"] != "." or match["detached"] is not None:
        return True
    found = WORD_BEFORE.search(before)
    word = found[0] if found else ""
    if word.lower() in TITLES:
        return False
    if word.lower() in ABBREVIATIONS or INITIALS.fullmatch(word):
        return following[0].lower() in STARTERS
    return True
