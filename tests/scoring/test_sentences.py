"""Sentence splitting on made-up sentences of the kinds that news text has."""

from __future__ import annotations

import gzip
import json

import pytest

from fairseq_switchdec.scoring.sentences import lead, one_sentence_a_line, split_sentences


@pytest.mark.parametrize(
    "sentences",
    [
        ["He left.", "She stayed!", "Why?", "Nobody knows."],
        ["Mr. Fox met Dr. A. B. Wolf on Jan. 5.", "It cost $3.5 million."],
        ["The U.S. Army flew in from the U.S.", "He came at 5 p.m. on Sunday.", "They met at 6 p.m.", "The end"],
        ['"Will he come?" she asked.', '"No!"', "(He did not.)", "So it went"],
        ["Oak Inc. Chairman Ash resigned from Oak Inc.", "Then he slept."],
        ["the ash fell .", "mr. oak 's dog barked ?", "yes !"],
        ["a lower-case text ends here.", "another begins, says mr. ash.", "is it so?", "it is."],
        ["Wait ... for it .", "`` Now , '' he said .", "Go to oak.org/a.html now ."],
        ["No mark at all"],
    ],
    ids=lambda sentences: sentences[0],
)
def test_sentences(sentences):
    assert split_sentences(" ".join(sentences)) == sentences


def test_newlines_are_the_sentences_where_there_are_some():
    assert split_sentences("One. Two.\n\n three ") == ["One. Two.", "three"]
    assert one_sentence_a_line("One. Two.") == "One.\nTwo."


@pytest.mark.parametrize("text", ["", "  "])
def test_no_text(text):
    assert split_sentences(text) == []


def test_marks_alone_are_no_sentence():
    assert split_sentences("he left . '' . she stayed .") == ["he left .", "'' . she stayed ."]


def test_lead():
    article = "(CNN)One is  here. Two, at 3 p.m., went. Three? Four."
    assert lead(article) == "(CNN)One is here. Two, at 3 p.m., went. Three?"
    assert lead(article, 1) == "(CNN)One is here." and lead("One", 3) == "One"


def test_real_summaries(shared_data):
    """CNN/DailyMail highlights are a sentence each, 3.8 on average over the test set."""
    with gzip.open(shared_data / "summarization/cnndm/cnndm.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [" ".join(json.loads(line)["summary"].split()) for line in file]
    split = [split_sentences(text) for text in texts]
    assert [" ".join(sentences) for sentences in split] == texts
    assert 3.4 < sum(map(len, split)) / len(split) < 4.2
