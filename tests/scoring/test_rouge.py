"""ROUGE by hand arithmetic, through fairseq's registry, and the paired bootstrap's properties."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from fairseq import scoring

from fairseq_switchdec.errors import UserError
from fairseq_switchdec.scoring.rouge import RougeScorer, paired_bootstrap, rouge_scores


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


def test_newlines_separate_sentences():
    """Summary-level ROUGE-L matches sentence by sentence, so that their order does not matter."""
    flat = rouge_scores(["one two three four"], ["three four one two"])
    lines = rouge_scores(["one two\nthree four"], ["three four\none two"])
    np.testing.assert_allclose([flat[0, 2], lines[0, 2]], [50, 100])


def test_empty_hypothesis_scores_zero():
    np.testing.assert_array_equal(rouge_scores(["some words"], [""]), [[0, 0, 0]])


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="1 references but 2 hypotheses"):
        rouge_scores(["a"], ["a", "b"])


def test_fairseq_finds_it_by_name():
    scorer = scoring.build_scorer("rouge", tgt_dict=None)
    assert isinstance(scorer, RougeScorer)
    assert scorer.score() == 0.0
    scorer.add_string("red green blue", "blue green red")
    scorer.add_string("same words", "same words")
    assert scorer.score() == pytest.approx((100 / 3 + 100) / 2)
    assert scorer.result_string() == "ROUGE-1 100.00 ROUGE-2 50.00 ROUGE-L 66.67"
    assert scorer.pair_scores().shape == (2, 3)


def test_missing_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(UserError, match="pip install rouge-score"):
        rouge_scores(["a"], ["a"])


def test_bootstrap_of_a_system_with_itself_is_zero():
    scores = np.random.RandomState(1).rand(50)
    assert paired_bootstrap(scores, scores) == (0.0, 0.0, 0.0)


def test_bootstrap_is_paired():
    """A constant gain has an interval of no width, however much the inputs differ."""
    baseline = 100 * np.random.RandomState(1).rand(50)
    np.testing.assert_allclose(paired_bootstrap(baseline + 2, baseline), [2, 2, 2])


def test_bootstrap_interval_matches_the_normal_one():
    rng = np.random.RandomState(2)
    baseline, gain = rng.rand(400), rng.randn(400)
    found = paired_bootstrap(baseline + gain, baseline, samples=4000)
    half = 1.96 * gain.std() / np.sqrt(gain.size)
    # 4,000 resamples place a 2.5 % quantile of the mean to about 4 % of its half width
    np.testing.assert_allclose(found, [gain.mean(), gain.mean() - half, gain.mean() + half], atol=0.1 * half)


def test_bootstrap_is_seeded_and_antisymmetric():
    rng = np.random.RandomState(3)
    first, second = rng.rand(30), rng.rand(30)
    forward, backward = paired_bootstrap(first, second, seed=7), paired_bootstrap(second, first, seed=7)
    assert forward == paired_bootstrap(first, second, seed=7)
    np.testing.assert_allclose(forward, (-backward.difference, -backward.high, -backward.low))


@pytest.mark.parametrize("scores, baseline", [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_bootstrap_refuses_what_is_not_paired(scores, baseline):
    with pytest.raises(ValueError, match="two equal non-empty vectors"):
        paired_bootstrap(scores, baseline)
