"""Intervals cover, clusters widen them, permutation and Holm have known values, failures are handled as declared."""

import numpy as np
import pytest

from i4d_bench.stats import best_and_ties, cluster_means, compare, compare_family, holm, mean_ci


def clustered(people, each=6, spread=1.0, noise=0.3, seed=0):
    """Values with a person effect: frames of one person are alike."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), each)
    return rng.normal(size=people)[who] * spread + rng.normal(size=len(who)) * noise, who


def test_cluster_means_weigh_every_person_alike():
    values, who = np.array([1.0, 3.0, 10.0]), np.array(["b", "b", "a"])
    assert cluster_means(values, who).tolist() == [10.0, 2.0]
    assert mean_ci(values, who).mean == 6.0


@pytest.mark.parametrize("people", [4, 12, 30])
def test_95_percent_intervals_cover(people):
    runs = 200
    intervals = [mean_ci(*clustered(people, seed=s), seed=s) for s in range(runs)]
    covered = sum(i.lo <= 0 <= i.hi for i in intervals) / runs
    assert 0.90 <= covered <= 0.99


def test_frames_of_one_person_do_not_narrow_the_interval():
    few, who = clustered(25, each=1, noise=0)
    once, often = mean_ci(few, who), mean_ci(np.repeat(few, 50), np.repeat(who, 50))
    assert (often.lo, often.hi) == pytest.approx((once.lo, once.hi)) and often.n == 50 * once.n


def test_failures_are_left_out_or_scored_at_worst():
    values, who = np.array([1.0, np.nan, 1.0, 1.0]), np.array([0, 0, 1, 2])
    without, worst = mean_ci(values, who), mean_ci(values, who, worst=0.0)
    assert (without.mean, without.n, without.failures) == (1.0, 3, 1)
    assert worst.mean == pytest.approx((0.5 + 1 + 1) / 3) and (worst.n, worst.failures) == (4, 1)


def test_too_few_people_give_no_interval_and_no_crash():
    one = mean_ci(np.array([1.0, 2.0]), np.array([7, 7]))
    assert one.mean == 1.5 and np.isnan([one.lo, one.hi]).all()
    none = mean_ci(np.array([np.nan]), np.array([0]))
    assert np.isnan(none.mean) and (none.n, none.failures) == (0, 1)
    pair = compare(np.array([1.0]), np.array([0.0]), np.array([0]), margin=5.0)
    assert pair.difference == 1 and np.isnan(pair.p) and not pair.significant and pair.equal is False


def test_equal_values_have_an_interval_of_no_width():
    i = mean_ci(np.ones(60), np.repeat(np.arange(30), 2))
    assert (i.lo, i.mean, i.hi) == (1, 1, 1)


def test_permutation_p_is_exact_for_few_people():
    # All five people gain: 2 of the 2⁵ sign patterns are as extreme.
    gain = np.array([1.0, 2.0, 1.5, 0.5, 3.0])
    assert compare(gain, np.zeros(5), np.arange(5)).p == pytest.approx(2 / 32)


def test_pairing_finds_what_unpaired_intervals_hide():
    base, who = clustered(24, spread=5.0, seed=3)
    rng = np.random.default_rng(4)
    better = base + 0.2 + rng.normal(size=len(base)) * 0.2
    c = compare(better, base, who)
    a, b = mean_ci(better, who), mean_ci(base, who)
    assert a.lo < b.hi and c.lo > 0 and c.p < 0.001 and c.difference == pytest.approx(0.2, abs=0.05)
    reverse = compare(base, better, who)
    assert reverse.difference == pytest.approx(-c.difference) and reverse.p == pytest.approx(c.p, abs=1e-3)


def test_no_difference_is_rarely_significant():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(10), 4)
    p = [compare(*rng.normal(size=(2, 40)), who, seed=s).p for s in range(120)]
    assert np.mean(np.array(p) < 0.05) < 0.1


def test_practically_equal_needs_the_whole_interval_inside_the_margin():
    base, who = clustered(30)
    near = base + 0.01 * np.random.default_rng(1).normal(size=len(base))
    assert compare(near, base, who, margin=0.1).equal is True
    assert compare(near + 0.1, base, who, margin=0.1).equal is False
    assert compare(near, base, who).equal is None


def test_holm_has_known_values_and_skips_what_is_unknown():
    assert holm(np.array([0.01, np.nan, 0.04, 0.03])) == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_family_and_bold_names():
    base, who = clustered(24, seed=1)
    rng = np.random.default_rng(2)
    wobble = lambda shift: base + shift + 0.1 * rng.normal(size=len(base))  # noqa: E731
    scores = {"best": wobble(1.0), "tie": wobble(1.0), "worse": wobble(0.5), "unmeasured": np.full(len(base), np.nan)}
    family = compare_family(scores, "best", who)
    assert set(family) == {"tie", "worse", "unmeasured"}
    single = compare(scores["worse"], scores["best"], who)
    assert family["worse"].p == pytest.approx(2 * single.p) and family["worse"].significant  # two known comparisons
    assert best_and_ties(scores, who, higher_is_better=True) == {"best", "tie"}
    assert best_and_ties({k: -v for k, v in scores.items()}, who, higher_is_better=False) == {"best", "tie"}
    assert best_and_ties({"unmeasured": scores["unmeasured"]}, who, True) == set()


@pytest.mark.unchecked
def test_wrong_samples_are_refused():
    with pytest.raises(ValueError, match="same samples"):
        compare(np.ones(3), np.ones(4), np.arange(3))
    with pytest.raises(ValueError, match="one cluster"):
        mean_ci(np.ones(3), np.arange(4))
    with pytest.raises(ValueError, match="infinite"):
        mean_ci(np.array([1.0, np.inf]), np.arange(2))
