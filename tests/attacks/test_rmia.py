"""RMIA against a naive re-implementation with unpaired masks, and what must not change its scores."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks.membership.rmia import rmia_scores, tuned_a


def example(k: int = 15, n: int = 60, z: int = 35, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    included = rng.random((k, n)) < 0.4  # unpaired: in-counts differ between records
    ease, ease_z = rng.normal(size=n), rng.normal(size=z)
    truth = rng.random(n) < 0.5

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    return {
        "target": sigmoid(ease + 2 * truth + rng.normal(scale=0.3, size=n)),
        "shadows": sigmoid(ease + 2 * included + rng.normal(scale=0.3, size=(k, n))),
        "included": included,
        "z_target": sigmoid(ease_z + rng.normal(scale=0.3, size=z)),
        "z_shadows": sigmoid(ease_z + rng.normal(scale=0.3, size=(k, z))),
        "truth": truth,
    }


def score(e: dict[str, np.ndarray], **options: object) -> np.ndarray:
    return rmia_scores(e["target"], e["shadows"], e["included"], e["z_target"], e["z_shadows"], **options)  # type: ignore[arg-type]


def mean_of_means(e: dict[str, np.ndarray]) -> float:
    columns = zip(e["shadows"].T, ~e["included"].T, strict=True)
    return float(np.mean([column[outside].mean() for column, outside in columns if outside.any()]))


def naive(e: dict[str, np.ndarray], *, online: bool, gamma: float, a: float) -> np.ndarray:
    found = []
    for j in range(len(e["target"])):
        inside, outside = (e["shadows"][side[:, j], j] for side in (e["included"], ~e["included"]))
        if online:
            px = np.mean([side.mean() for side in (inside, outside) if len(side)])
        else:
            px = ((1 + a) * (outside.mean() if len(outside) else mean_of_means(e)) + 1 - a) / 2
        wins = 0
        for i in range(len(e["z_target"])):
            mean = e["z_shadows"][:, i].mean()
            pz = mean if online else ((1 + a) * mean + 1 - a) / 2
            wins += (e["target"][j] / px) / (e["z_target"][i] / pz) > gamma
        found.append(wins / len(e["z_target"]))
    return np.array(found)


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
@pytest.mark.parametrize("a", [0.0, 0.3, 1.0])
def test_equals_the_naive_formula(online: bool, gamma: float, a: float) -> None:
    e = example()
    assert np.allclose(score(e, online=online, gamma=gamma, a=a), naive(e, online=online, gamma=gamma, a=a))


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_equals_the_naive_formula_where_ratios_tie_and_shadows_are_missing(online: bool, gamma: float) -> None:
    # Every number is a small power of two and every count too, so that means are exact and ties are ties.
    rng = np.random.default_rng(2)
    k, n, z = 8, 120, 90

    def powers(*shape: int) -> np.ndarray:
        return 0.5 ** rng.integers(0, 3, shape)

    included = np.array([rng.permutation(k) < k // 2 for _ in range(n)]).T
    included[:, :10], included[:, 10:20] = True, False
    e = {
        "target": powers(n), "shadows": powers(k, n), "included": included,
        "z_target": powers(z), "z_shadows": np.tile(powers(z), (k, 1)),
    }  # fmt: skip
    e["shadows"][:, 20:60] = 0.5
    found = score(e, online=online, gamma=gamma, a=1.0)
    assert np.array_equal(found, naive(e, online=online, gamma=gamma, a=1.0))
    ties = e | {"target": e["z_target"][:1].repeat(n), "shadows": np.full((k, n), e["z_shadows"][0, 0])}
    beaten = score(ties, online=online, a=1.0)
    assert beaten.max() < 1  # an equal ratio is not beaten
    assert np.array_equal(beaten, naive(ties, online=online, gamma=1.0, a=1.0))


def test_tuning_picks_what_trying_every_a_picks() -> None:
    e = example(k=6, n=80, z=40)
    totals = []
    for a in np.linspace(0, 1, 11):
        total = 0.0
        for player in range(4):
            rest = np.arange(6) != player
            scores = rmia_scores(
                e["shadows"][player], e["shadows"][rest], e["included"][rest],
                e["z_shadows"][player], e["z_shadows"][rest], online=False, a=float(a), gamma=2.0,
            )  # fmt: skip
            total += roc_auc_score(e["included"][player], scores)
        totals.append(total)
    assert tuned_a(e["shadows"], e["included"], e["z_shadows"], gamma=2.0) == np.linspace(0, 1, 11)[np.argmax(totals)]


@pytest.mark.parametrize("online", [True, False])
def test_shuffling_shadows_with_their_masks_changes_nothing(online: bool) -> None:
    e = example()
    order = np.random.default_rng(1).permutation(len(e["shadows"]))
    mixed = e | {name: e[name][order] for name in ("shadows", "included", "z_shadows")}
    assert np.array_equal(score(e, online=online), score(mixed, online=online))


@pytest.mark.parametrize("online", [True, False])
def test_what_shadows_that_saw_a_record_say_matters_online_only(online: bool) -> None:
    e = example()
    louder = e | {"shadows": np.where(e["included"], 0.999, e["shadows"])}
    assert np.array_equal(score(e, online=online), score(louder, online=online)) == (not online)


@pytest.mark.parametrize("online", [True, False])
def test_it_finds_members(online: bool) -> None:
    e = example(n=2000, z=500)
    assert roc_auc_score(e["truth"], score(e, online=online)) > roc_auc_score(e["truth"], e["target"]) + 0.05


@pytest.mark.parametrize("online", [True, False])
def test_records_that_all_or_no_shadows_saw_get_a_number(online: bool) -> None:
    e = example(k=3)
    e["included"][:, 0], e["included"][:, 1] = True, False
    assert np.isfinite(score(e, online=online)).all()


def test_certainty_and_impossibility_stay_finite() -> None:
    e = example()
    extreme = e | {"target": np.where(e["truth"], 1.0, 0.0), "shadows": np.zeros_like(e["shadows"])}
    assert np.isfinite(score(extreme, online=True)).all()


def test_what_cannot_be_scored_is_refused() -> None:
    e = example()
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        score(e | {"target": e["target"] + 1}, online=True)
    with pytest.raises(ValueError, match="shadow's population"):
        score(e | {"z_shadows": np.full_like(e["z_shadows"], np.nan)}, online=True)
    with pytest.raises(ValueError, match="gamma is 0"):
        score(e, online=True, gamma=0.0)
    with pytest.raises(ValueError, match="a is 2"):
        score(e, online=False, a=2.0)
    with pytest.raises(ValueError, match="same records"):
        score(e | {"z_shadows": e["z_shadows"][:, :3]}, online=True)
