"""Intervals cover, seeds and people widen them, t and Holm have known values, failures and what is missing are told apart."""

import re

import numpy as np
import pandas as pd
import pytest
from helpers import ROOT
from helpers.coverage import PEOPLE, SEEDS, WORLDS, coverage, drawn
from scipy import stats as scipy_stats

from i4d_bench.stats import AXES, best_and_ties, compare, compare_family, estimate, holm, mean_ci


def scores(values, seeds=None, people=None, drivers=None, samples=None) -> pd.Series:
    """By default one seed, and a person for each value."""
    count = len(values)
    people = range(count) if people is None else people
    columns = (
        np.zeros(count, int) if seeds is None else seeds,
        range(count) if samples is None else samples,
        people,
        people if drivers is None else drivers,
    )
    return pd.Series(np.asarray(values, float), pd.MultiIndex.from_arrays([list(c) for c in columns], names=AXES))


def table(values) -> pd.Series:
    """Scores of a table [people, seeds]."""
    people, seeds = np.shape(values)
    who = np.repeat(np.arange(people), seeds)
    return scores(np.ravel(values), np.tile(np.arange(seeds), people), who, samples=who)


def effects(people=12, seeds=4, of_people=1.0, of_seeds=0.3, rest=0.3, seed=0) -> np.ndarray:
    r = np.random.default_rng(seed)
    both = of_people * r.normal(size=(people, 1)) + of_seeds * r.normal(size=seeds)
    return both + rest * r.normal(size=(people, seeds))


def test_people_weigh_the_same_however_many_samples_they_have():
    assert mean_ci(scores([1.0, 3.0, 10.0], people=["b", "b", "a"])).mean == 6.0


def test_few_seeds_leave_an_interval_over_people_alone():
    """Student's t on people's means; another seed of the same scores adds nothing."""
    values = np.random.default_rng(0).normal(size=(12, 1))
    mean, lo, hi, n, failures, seeds = mean_ci(table(values))
    expected = scipy_stats.t.interval(0.95, 11, values.mean(), scipy_stats.sem(values.ravel()))
    assert (lo, hi) == pytest.approx(expected) and (n, failures, seeds) == (12, 0, 1)
    two = mean_ci(table(values.repeat(2, 1)))
    assert two[:3] == pytest.approx((mean, lo, hi)) and two.seeds == 2


def test_two_crossed_factors_have_the_variance_of_their_mean_squares():
    """As multi-reader multi-case studies have it (DESIGN §7), worked out here from the table's sums of squares."""
    values = effects()
    people, seeds = values.shape
    grand, rows, columns = values.mean(), values.mean(1), values.mean(0)
    ms_people = seeds * np.square(rows - grand).sum() / (people - 1)
    ms_seeds = people * np.square(columns - grand).sum() / (seeds - 1)
    ms_rest = np.square(values - rows[:, None] - columns + grand).sum() / ((people - 1) * (seeds - 1))
    variance = (ms_people + ms_seeds - ms_rest) / values.size
    df = (ms_people + ms_seeds) / (ms_people / (people - 1) + ms_seeds / (seeds - 1))
    e = estimate(table(values))
    assert (e.mean, e.variance, e.df) == pytest.approx((grand, variance, df))
    assert (e.seeds, e.people) == (4, 12)
    assert e.p == pytest.approx(2 * scipy_stats.t.sf(abs(grand) / np.sqrt(variance), df))


def test_seeds_that_differ_widen_the_interval():
    alike, apart = (estimate(table(effects(of_seeds=s, seed=1))) for s in (0.0, 1.0))
    assert apart.variance > 2 * alike.variance and apart.df < 8 < alike.df


def test_a_pair_of_two_people_counts_for_both():
    """Ten pairs that share a driver are no more than one of that driver."""
    r = np.random.default_rng(3)
    of_driver = r.normal(size=4)
    people, drivers = np.arange(40), np.repeat(np.arange(4), 10)
    values = 3 * of_driver[drivers] + r.normal(size=40)
    own, shared = (
        estimate(scores(values, people=people)),
        estimate(scores(values, people=people, drivers=100 + drivers)),
    )
    assert shared.variance > 4 * own.variance and shared.df == 3
    assert estimate(scores(values, people=people, drivers=100 + people)).variance == pytest.approx(own.variance)


def test_who_is_shown_here_and_drives_there_joins_both_pairs():
    """The sum over all pairs of units that share anybody, written out; and what it leaves where everybody is shown and drives."""
    r = np.random.default_rng(5)
    people = np.repeat(np.arange(12), 2)
    drivers = (people + np.tile([1, 5], 12)) % 12
    own = r.normal(size=12)
    errors = own[people] + own[drivers] + 0.1 * r.normal(size=24)
    errors -= errors.mean()
    sets = [{int(a), int(b)} for a, b in zip(people, drivers, strict=True)]
    joined = np.array([[bool(a & b) for b in sets] for a in sets])
    expected = errors @ joined @ errors / (24**2 - joined.sum())
    e = estimate(scores(errors, people=people, drivers=drivers))
    assert e.variance == pytest.approx(expected)
    assert e.variance > 1.5 * estimate(scores(errors, people=people, drivers=100 + drivers)).variance


def test_cells_that_are_missing_are_what_an_additive_model_expects():
    people, seeds = np.arange(10.0)[:, None], np.array([0.0, 0.3, -0.2])
    full = table(people + seeds)
    e = estimate(full.drop(full.index[[4, 17]]))
    assert e.mean == pytest.approx((people + seeds).mean()) and e.seeds == 3
    rest = effects(people=10, seeds=3)
    rest = table(rest - rest.mean(1, keepdims=True) - rest.mean(0) + rest.mean())
    assert estimate(rest).df == 9 * 2 and estimate(rest.drop(rest.index[[4, 17]])).df == 9 * 2 - 2


def test_a_table_with_hardly_anything_in_it_has_no_interval_and_does_not_crash():
    e = estimate(scores([1.0, 2.0, 3.0], seeds=[0, 1, 2], people=[0, 1, 2]))
    assert np.isnan([e.variance, e.p]).all()


@pytest.mark.parametrize("world", WORLDS, ids=lambda w: w.name)
def test_intervals_cover_as_the_docs_say(world):
    """docs/statistics.md is printed by tests/helpers/coverage.py; here 150 runs of two of its cells."""
    text = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"^\| {re.escape(world.name)} \|(.*)\|$", text, re.MULTILINE)
    printed = [float(cell) / 100 for cell in line.split("|")[1:]]
    assert len(printed) == len(SEEDS) * len(PEOPLE) and all(0.93 <= p <= 0.985 for p in printed)
    for seeds, people, said in ((3, 10, printed[0]), (4, 96, printed[len(SEEDS) + 1])):
        found = coverage(world, seeds, people, runs=150, seed=1)
        assert abs(found - said) < 3.5 * np.sqrt(said * (1 - said) / 150)


def test_no_difference_is_rarely_significant():
    r = np.random.default_rng(0)
    p = [drawn(WORLDS[2], 4, 12, r).p for _ in range(200)]
    assert np.mean(np.array(p) < 0.05) < 0.09


def test_failures_are_left_out_or_scored_at_worst():
    three = scores([1.0, np.nan, 1.0, 1.0], people=[0, 0, 1, 2])
    without, worst = mean_ci(three), mean_ci(three, worst=0.0)
    assert (without.mean, without.n, without.failures) == (1.0, 3, 1)
    assert worst.mean == pytest.approx((0.5 + 1 + 1) / 3) and (worst.n, worst.failures) == (4, 1)


def test_what_one_side_has_alone_is_left_out_and_counted_and_is_no_failure():
    a, b = table(effects(seeds=4)), table(effects(seeds=4) - 0.5)
    c = compare(a, b.drop(index=3, level="seed"), worst=-100.0)
    assert (c.difference, c.n, c.seeds, c.unpaired, c.failures) == (pytest.approx(0.5), 36, 3, 12, 0)
    failed = b.copy()
    failed.iloc[0] = np.nan
    assert compare(a, failed, worst=-100.0).difference > 2 and compare(a, failed).failures == 1


def test_with_fewer_than_three_seeds_nothing_is_told():
    a, b = table(effects(seeds=2)), table(effects(seeds=2) - 5)
    c = compare(a, b, margin=10.0)
    assert c.difference == pytest.approx(5) and c.lo == pytest.approx(5) and np.isnan(c.p)
    assert not c.significant and c.equal is None
    assert best_and_ties({"a": a, "b": b}, higher_is_better=True) == set()


def test_too_few_people_give_no_interval_and_no_crash():
    one = mean_ci(scores([1.0, 2.0], people=[7, 7]))
    assert one.mean == 1.5 and np.isnan([one.lo, one.hi]).all()
    none = mean_ci(scores([np.nan], people=[0]))
    assert np.isnan(none.mean) and (none.n, none.failures) == (0, 1)
    pair = compare(table(effects(people=1)), table(effects(people=1)), margin=5.0)
    assert pair.difference == 0 and np.isnan(pair.p) and not pair.significant and pair.equal is None


def test_equal_values_have_an_interval_of_no_width():
    i = mean_ci(table(np.ones((30, 3))))
    assert (i.lo, i.mean, i.hi) == (1, 1, 1)
    same = compare(table(effects()), table(effects()), margin=0.1)
    assert same.p == 1 and same.equal is True


def test_pairing_finds_what_unpaired_intervals_hide():
    base = effects(people=24, of_people=5.0, seed=3)
    better = base + 0.2 + 0.2 * np.random.default_rng(4).normal(size=base.shape)
    c, reverse = compare(table(better), table(base)), compare(table(base), table(better))
    assert mean_ci(table(better)).lo < mean_ci(table(base)).hi and c.lo > 0 and c.p < 0.02
    assert c.difference == pytest.approx(0.2, abs=0.05)
    assert reverse.difference == pytest.approx(-c.difference) and reverse.p == pytest.approx(c.p)


def test_practically_equal_needs_the_whole_interval_inside_the_margin():
    base = effects(people=30)
    near = base + 0.01 * np.random.default_rng(1).normal(size=base.shape)
    assert compare(table(near), table(base), margin=0.1).equal is True
    assert compare(table(near + 0.1), table(base), margin=0.1).equal is False
    assert compare(table(near), table(base)).equal is None


def test_holm_has_known_values_and_skips_what_is_unknown():
    assert holm(np.array([0.01, np.nan, 0.04, 0.03])) == pytest.approx([0.03, np.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_family_and_bold_names():
    base, r = effects(people=24, seed=1), np.random.default_rng(2)
    wobble = lambda shift: table(base + shift + 0.1 * r.normal(size=base.shape))  # noqa: E731
    unmeasured = table(np.full(base.shape, np.nan))
    family = {"best": wobble(1.0), "tie": wobble(1.0), "worse": wobble(0.5), "unmeasured": unmeasured}
    found = compare_family(family, "best")
    assert set(found) == {"tie", "worse", "unmeasured"}
    single = compare(family["worse"], family["best"])
    assert found["worse"].p == pytest.approx(2 * single.p) and found["worse"].significant  # two known comparisons
    assert best_and_ties(family, higher_is_better=True) == {"best", "tie"}
    assert best_and_ties({k: -v for k, v in family.items()}, higher_is_better=False) == {"best", "tie"}
    assert best_and_ties({"unmeasured": unmeasured}, True) == set()


def test_wrong_scores_are_refused():
    with pytest.raises(ValueError, match="indexed by seed, sample, person, driver"):
        mean_ci(pd.Series([1.0]))
    with pytest.raises(ValueError, match="infinite"):
        mean_ci(scores([1.0, np.inf]))
