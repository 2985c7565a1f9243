"""The bootstrap's properties."""

from __future__ import annotations

import numpy as np
import pytest

from fairseq_switchdec.scoring.bootstrap import bootstrap, paired_bootstrap


def test_of_a_system_with_itself_is_zero():
    scores = np.random.RandomState(1).rand(50)
    assert paired_bootstrap(scores, scores) == (0.0, 0.0, 0.0)


def test_is_paired():
    """A constant gain has an interval of no width, however much the inputs differ."""
    baseline = 100 * np.random.RandomState(1).rand(50)
    np.testing.assert_allclose(paired_bootstrap(baseline + 2, baseline), [2, 2, 2])


def test_matches_the_normal_interval():
    rng = np.random.RandomState(2)
    baseline, gain = rng.rand(400), rng.randn(400)
    half = 1.96 * gain.std() / np.sqrt(gain.size)
    # 4,000 resamples place a 2.5 % quantile of the mean to about 4 % of its half width
    for found in (paired_bootstrap(baseline + gain, baseline, samples=4000), bootstrap(gain, samples=4000)):
        np.testing.assert_allclose(found, [gain.mean(), gain.mean() - half, gain.mean() + half], atol=0.1 * half)


def test_confidence_widens_the_interval():
    values = np.random.RandomState(4).rand(100)
    narrow, wide = bootstrap(values, confidence=0.5), bootstrap(values, confidence=0.99)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_is_seeded_and_antisymmetric():
    rng = np.random.RandomState(3)
    first, second = rng.rand(30), rng.rand(30)
    forward, backward = paired_bootstrap(first, second, seed=7), paired_bootstrap(second, first, seed=7)
    assert forward == paired_bootstrap(first, second, seed=7) != paired_bootstrap(first, second, seed=8)
    np.testing.assert_allclose(forward, (-backward.mean, -backward.high, -backward.low))


@pytest.mark.parametrize("scores, baseline", [([], []), ([1.0], [1.0, 2.0]), ([[1.0]], [[1.0]])])
def test_refuses_what_is_not_paired(scores, baseline):
    with pytest.raises(ValueError, match="two equal non-empty vectors"):
        paired_bootstrap(scores, baseline)


@pytest.mark.parametrize("values", [[], [[1.0]]])
def test_refuses_no_vector(values):
    with pytest.raises(ValueError, match="a non-empty vector"):
        bootstrap(values)
