"""ROUGE by hand arithmetic, through fairseq's registry, and over processes."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from fairseq import scoring

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.scoring import fairseq_scorer, rouge
from fairseq_switchdec.scoring.rouge import looks_undecoded, rouge_scores


def test_hand_computed():
    """5 words against 4: 3 words, 1 pair of neighbours and a common subsequence of 3 are shared."""
    (scores,) = rouge_scores(["the small cat sat down"], ["the cat sat up"])
    one, two = 2 * (3 / 4) * (3 / 5) / (3 / 4 + 3 / 5), 2 * (1 / 3) * (1 / 4) / (1 / 3 + 1 / 4)
    np.testing.assert_allclose(scores, [100 * one, 100 * two, 100 * one])


def test_order_counts_for_rouge_l_only():
    (scores,) = rouge_scores(["red green blue"], ["blue green red"])
    np.testing.assert_allclose(scores, [100, 0, 100 / 3])


def test_words_are_stemmed_and_case_is_ignored():
    np.testing.assert_allclose(rouge_scores(["Returns jumping cats"], ["return jumped cat"]), [[100, 100, 100]])


def test_rouge_l_is_that_of_the_summary():
    """It matches sentence by sentence, so that their order does not matter; newlines or marks end a sentence."""
    flat = rouge_scores(["one two three four"], ["three four one two"])
    lines = rouge_scores(["one two\nthree four"], ["three four\none two"])
    marks = rouge_scores(["one two . three four ."], ["Three four. One two."])
    np.testing.assert_allclose([flat[0, 2], lines[0, 2], marks[0, 2]], [50, 100, 100])


def test_empty_hypothesis_scores_zero():
    np.testing.assert_array_equal(rouge_scores(["some words"], [""]), [[0, 0, 0]])


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="1 references but 2 hypotheses"):
        rouge_scores(["a"], ["a", "b"])


def test_processes_change_nothing(monkeypatch):
    monkeypatch.setattr(rouge, "CHUNK", 3)
    rng = np.random.RandomState(1)
    references, hypotheses = ([" ".join(rng.choice(list("abcdef"), 8)) for _ in range(10)] for _ in range(2))
    alone = rouge_scores(references, hypotheses)
    np.testing.assert_array_equal(rouge_scores(references, hypotheses, processes=2), alone)
    assert len(np.unique(alone[:, 2])) > 2


def test_fairseq_finds_it_by_name():
    scorer = scoring.build_scorer("rouge", tgt_dict=None)
    assert isinstance(scorer, fairseq_scorer.RougeScorer)
    assert scorer.score() == 0.0 and scorer.result_string() == "ROUGE of no input"
    scorer.add_string("red green blue", "blue green red")
    scorer.add_string("same words", "same words")
    assert scorer.score() == pytest.approx((100 / 3 + 100) / 2)
    found = re.findall(r"(ROUGE-\S) (\S+) \[(\S+), (\S+)\]", scorer.result_string())
    # Two inputs: their resampled means are those of either alone and of both.
    assert found == [
        ("ROUGE-1", "100.00", "100.00", "100.00"),
        ("ROUGE-2", "50.00", "0.00", "100.00"),
        ("ROUGE-L", "66.67", "33.33", "100.00"),
    ]


def test_unknown_words_match_nothing():
    scorer = scoring.build_scorer("rouge", tgt_dict=None)
    scorer.add_string("red <<unk>>", "red <unk>")
    assert scorer.score() == pytest.approx(50)


def test_undecoded_bpe_is_noticed(caplog):
    assert looks_undecoded(["31414 232", "", "328"])
    assert not looks_undecoded(["31414 232", "in 2015"]) and not looks_undecoded([""])
    scorer = scoring.build_scorer("rouge", tgt_dict=None)
    scorer.add_string("31414 232", "31414 232")
    scorer.result_string()
    assert "add the --bpe" in caplog.text


def test_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    rouge._pair_scorer.cache_clear()
    with pytest.raises(UserError, match="pip install rouge-score"):
        rouge_scores(["a"], ["a"])
