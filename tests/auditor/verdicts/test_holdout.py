"""Fit of the declared sides: honest owners at the nominal rate, contaminated, swapped and padded sides seen."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from attacks.membership.signals import logit_confidence
from auditor.verdicts.holdout import HoldoutFit, fit_of_sides
from defenses.architectures import Architecture
from defenses.engine.training import Job, train
from defenses.recipe import Recipe
from defenses.records import BoolArray, Image, Records
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import SGD

Floats = np.ndarray[Any, np.dtype[np.float64]]


def drawn(rng: np.random.Generator, models: int, *, records: int = 300, gap: float = 2.0) -> tuple[Floats, BoolArray]:
    """Scores of models that share the luck of one training each: record + model + IN shift + noise."""
    inside = rng.random((models, records)) < 0.5
    luck = rng.normal(scale=0.3, size=(models, 1))
    return rng.normal(2, 2, records) + luck + gap * inside + rng.normal(size=(models, records)), inside


def fitted(scores: Floats, inside: BoolArray, *, level: float = 0.99) -> HoldoutFit:
    """The first model is the target."""
    return fit_of_sides(scores[0], inside[0], shadows=scores[1:], included=inside[1:], level=level)


def plausible(count: int, trials: int, rate: float) -> bool:
    return bool(binom.sf(count - 1, trials, rate) > 1e-3 and binom.cdf(count, trials, rate) > 1e-3)


def test_honest_targets_are_doubted_at_the_nominal_rate() -> None:
    # Fails if records are taken for the independent unit (rejects most honest targets: all records share the luck of
    # one training), or if a shadow is compared with means that it is part of while the target is not.
    rng, above, below = np.random.default_rng(0), 0, 0
    for _ in range(600):
        fit = fitted(*drawn(rng, 8, records=50), level=0.9)
        above, below = above + fit.nonmembers_fitted, below + fit.nonmembers_missed
    assert plausible(above, 600, 0.05)
    assert plausible(below, 600, 0.05)


@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_the_share_that_was_trained_on_is_found(share: float) -> None:
    # Fails if the scale is not that of the shadows: 0 what they left out, 1 what they trained on.
    rng, found, covered = np.random.default_rng(1), [], 0
    for _ in range(100):
        scores, inside = drawn(rng, 17)
        out = np.flatnonzero(~inside[0])
        scores[0, out[: round(share * len(out))]] += 2.0
        fit = fitted(scores, inside)
        found.append(fit.nonmembers.value)
        covered += fit.nonmembers.low <= share <= fit.nonmembers.high
    assert np.mean(found) == pytest.approx(share, abs=0.06)
    assert covered >= 95


def test_the_least_share_that_would_be_seen_is_seen_nine_times_in_ten() -> None:
    # Fails if the ceiling is taken for power: a share of just the interval's reach is seen every other time.
    rng, seen = np.random.default_rng(2), 0
    for _ in range(100):
        scores, inside = drawn(rng, 13, records=200)
        least = fitted(scores, inside).least_seen
        out = np.flatnonzero(~inside[0])
        scores[0, out[: round(least * len(out))]] += 2.0
        seen += fitted(scores, inside).nonmembers_fitted
    assert 80 <= seen <= 98


def test_swapped_and_padded_sides_are_told_apart() -> None:
    # Fails if only one tail is looked at, or if the members' side is compared with what shadows left out.
    rng = np.random.default_rng(3)
    scores, inside = drawn(rng, 17)
    swapped = fit_of_sides(scores[0], ~inside[0], shadows=scores[1:], included=inside[1:], level=0.99)
    assert swapped.swapped
    padded = inside[0].copy()
    padded[np.flatnonzero(inside[0])[30:]] = False  # 30 that were in, and all that were out, are declared members
    padded |= ~inside[0]
    fit = fit_of_sides(scores[0], padded, shadows=scores[1:], included=inside[1:], level=0.99)
    assert fit.members_doubted
    honest = fitted(scores, inside)
    assert not any((honest.swapped, honest.members_doubted, honest.nonmembers_fitted))


def test_the_order_of_shadows_tells_nothing() -> None:
    scores, inside = drawn(np.random.default_rng(4), 13)
    order = np.r_[0, 1 + np.random.default_rng(5).permutation(12)]
    first, second = fitted(scores, inside), fitted(scores[order], inside[order])
    assert first.nonmembers.value == pytest.approx(second.nonmembers.value, abs=1e-9)
    assert first.members.high == pytest.approx(second.members.high, abs=1e-9)


def test_a_few_extreme_records_do_not_carry_the_figure() -> None:
    # Fails if raw scores are averaged, or if the noise is the mean square of residuals: one absurd answer would then
    # hide that all of the holdout was trained on.
    scores, inside = drawn(np.random.default_rng(6), 17)
    before = fitted(scores, inside).nonmembers.value
    scores[0, np.flatnonzero(~inside[0])[0]] = 1e4
    assert fitted(scores, inside).nonmembers.value == pytest.approx(before, abs=0.03)
    scores[0, ~inside[0]] += 2.0
    assert fitted(scores, inside).nonmembers_fitted


def test_where_nothing_separates_a_target_that_fits_far_better_is_still_seen() -> None:
    # A claim of strong noise, under which shadows fit both sides alike, for a target that was trained without any:
    # fails if the posterior, which then says one half of every record, is all that is looked at.
    rng = np.random.default_rng(7)
    scores, inside = drawn(rng, 17, gap=0.0)
    honest = fitted(scores, inside)
    assert not honest.separated
    assert not honest.nonmembers_fitted
    scores[0] += 6.0
    assert fitted(scores, inside).nonmembers_fitted
    assert not fitted(scores, inside).members_doubted


def test_records_that_every_shadow_saw_are_left_out() -> None:
    scores, inside = drawn(np.random.default_rng(8), 9)
    inside[1:, :5] = True
    inside[1:, 5:10] = False
    fit = fitted(scores, inside)
    assert np.isfinite([fit.nonmembers.value, fit.members.value, fit.least_seen]).all()


@pytest.mark.parametrize(
    ("models", "spoil", "words"),
    [
        (4, None, "3 shadow models; at least 4"),
        (9, "shape", "must agree"),
        (9, "nan", "not finite"),
        (9, "one side", "no record on one side"),
        (9, "never out", "no record was in some"),
    ],
)
def test_what_cannot_be_compared_is_refused(models: int, spoil: str | None, words: str) -> None:
    scores, inside = drawn(np.random.default_rng(9), models)
    if spoil == "shape":
        inside = inside[:-1]
    if spoil == "nan":
        scores[2, 3] = np.nan
    if spoil == "one side":
        inside[0] = True
    if spoil == "never out":
        inside[:] = np.arange(inside.shape[1]) < 150
    with pytest.raises(ValueError, match=words):
        fitted(scores, inside)


# --- real trainings


def digits(records: int, *, noise: float) -> Records:
    from sklearn.datasets import load_digits

    rng, found = np.random.default_rng(0), load_digits()
    chosen = rng.permutation(len(found.target))[:records]
    x, y = (found.data[chosen] / 16).astype(np.float32), found.target[chosen].astype(np.int64)
    wrong = rng.random(records) < noise
    y[wrong] = rng.integers(0, 10, wrong.sum())
    return Records(x.reshape(-1, 1, 8, 8), y, 10, Image())


def said(records: Records, inside: BoolArray, *, epochs: int, first: int = 0) -> Floats:
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": [64]}),
        lots=Lots(len(records) // 2, 32, epochs),
        learning_rate=0.05,
        optimizer=SGD(0.9),
    )
    seeds = list(range(first, first + len(inside)))
    ensemble = train(Job(recipe, NoDefense(), records), inside, seeds, device="cpu")
    return logit_confidence(ensemble.logits(records.x), records.y)


def contaminated(inside: BoolArray, share: float, rng: np.random.Generator) -> BoolArray:
    found = inside.copy()
    for row in found:
        out = np.flatnonzero(~row)
        row[rng.choice(out, round(share * len(out)), replace=False)] = True
    return found


def doubts(scores: Floats, inside: BoolArray, *, shadows: int, rng: np.random.Generator) -> list[bool]:
    """Let each model be the target once, against others drawn from the rest."""
    found = []
    for target in range(len(scores)):
        rest = np.delete(np.arange(len(scores)), target)
        chosen = np.r_[target, rng.choice(rest, shadows, replace=False)]
        fit = fitted(scores[chosen], inside[chosen])
        found.append(fit.nonmembers_fitted or fit.members_doubted)
    return found


def test_on_real_trainings_honest_owners_pass_and_a_trained_holdout_does_not() -> None:
    rng, records = np.random.default_rng(0), digits(200, noise=0.3)
    inside = rng.random((30, 200)) < 0.5
    scores = said(records, inside, epochs=25)
    assert sum(doubts(scores, inside, shadows=16, rng=rng)) <= 2
    declared = rng.random((4, 200)) < 0.5
    lying = said(records, contaminated(declared, 1.0, rng), epochs=25, first=1000)
    for row, who in zip(lying, declared, strict=True):
        assert fit_of_sides(row, who, shadows=scores[:16], included=inside[:16], level=0.99).nonmembers_fitted


@pytest.mark.slow
@pytest.mark.parametrize(("noise", "epochs", "power"), [(0.3, 40, (0.15, 0.8, 1.0)), (0.0, 40, (0.0, 0.5, 1.0))])
def test_rates_on_real_trainings(noise: float, epochs: int, power: tuple[float, ...]) -> None:
    """Nominal 1% for honest owners over 240 targets; power against 10%, 30% and all of the holdout trained on."""
    rng, records = np.random.default_rng(0), digits(800, noise=noise)
    inside = rng.random((240, 800)) < 0.5
    scores = said(records, inside, epochs=epochs)
    assert plausible(sum(doubts(scores, inside, shadows=16, rng=rng)), 240, 0.015)
    for share, least in zip((0.1, 0.3, 1.0), power, strict=True):
        declared = rng.random((40, 800)) < 0.5
        lying = said(records, contaminated(declared, share, rng), epochs=epochs, first=1000)
        seen = 0
        for row, who in zip(lying, declared, strict=True):
            chosen = rng.choice(240, 16, replace=False)
            fit = fit_of_sides(row, who, shadows=scores[chosen], included=inside[chosen], level=0.99)
            seen += fit.nonmembers_fitted
        assert seen / 40 >= least
