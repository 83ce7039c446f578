"""What a release costs, by brute force; what it holds; and that everything after it is free."""

import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from defenses.guarantee import Guarantee, Neighboring, Unaccounted
from defenses.mechanisms.tables import released as module
from defenses.mechanisms.tables.domains import Categories, Domain
from defenses.mechanisms.tables.margins import Margin, Ways, contingency, margins_of, shape_of
from defenses.mechanisms.tables.released import Released, release
from defenses.modes import Mode

DOMAINS: dict[str, Domain] = {
    "sex": Categories("f", "m", missing=False),
    "sick": Categories(False, True, missing=False),
    "ward": Categories(1, 2, 3, missing=False),
}
SIZES = {name: domain.size for name, domain in DOMAINS.items()}
RECORDS = list(itertools.product(*(range(size) for size in SIZES.values())))
KEY = b"sixteen secret b"


def coded(rows: list[tuple[int, ...]]) -> dict[str, np.ndarray]:
    table = np.array(rows, dtype=np.int64).reshape(-1, len(DOMAINS))
    return {name: table[:, at] for at, name in enumerate(DOMAINS)}


def made(
    neighboring: Neighboring, mode: Mode, ways: Ways, *, epsilon: float = 0.7, rows: int | None = None
) -> Released:
    margins = margins_of(ways, list(DOMAINS), label="sick")
    return release(
        coded(RECORDS), DOMAINS, margins, epsilon=epsilon, neighboring=neighboring, mode=mode, rows=rows, key=KEY
    )


def neighbours(neighboring: Neighboring) -> list[tuple[list[tuple[int, ...]], list[tuple[int, ...]]]]:
    """Return every pair of neighbouring data sets of up to two records."""
    small = [list(rows) for count in (0, 1) for rows in itertools.combinations_with_replacement(RECORDS, count)]
    if neighboring is Neighboring.ADD_REMOVE:
        return [(rows, [*rows, more]) for rows in small for more in RECORDS]
    return [([*rows, one], [*rows, other]) for rows in small for one in RECORDS for other in RECORDS]


@pytest.mark.parametrize("neighboring", Neighboring)
@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("ways", [Ways.ONE, Ways.ONE_AND_TWO])
def test_the_stated_price_is_the_worst_that_brute_force_finds(neighboring: Neighboring, mode: Mode, ways: Ways) -> None:
    found = made(neighboring, mode, ways, rows=5)
    worst = Fraction(0)
    for one, other in neighbours(neighboring):
        moved = 0
        for margin in found.margins:
            shape = shape_of(margin, SIZES)
            tables = [contingency(coded(rows), margin, shape) for rows in (one, other)]
            moved += int(np.abs(tables[0] - tables[1]).sum())
        worst = max(worst, moved / found.scale)  # the largest log-ratio of integer Laplace densities
    proved = found.guarantee()
    assert isinstance(proved, Guarantee)
    assert proved.epsilon == pytest.approx(float(worst))
    assert proved.neighboring is neighboring
    assert proved.delta == 0
    k, twice = len(found.margins), 2 if neighboring is Neighboring.REPLACE_ONE else 1
    assert proved.epsilon == pytest.approx(0.7 if mode is Mode.REPAIRED else 0.7 * k * twice, rel=1e-5)


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize(
    ("mode", "neighboring", "scale"),
    [
        (Mode.REPAIRED, Neighboring.ADD_REMOVE, 2 / 0.5),
        (Mode.REPAIRED, Neighboring.REPLACE_ONE, 4 / 0.5),
        (Mode.LITERAL, Neighboring.ADD_REMOVE, 1 / 0.5),
        (Mode.LITERAL, Neighboring.REPLACE_ONE, 1 / 0.5),
    ],
)
def test_counts_carry_noise_of_that_scale(
    mode: Mode, neighboring: Neighboring, scale: float, key: bytes | None
) -> None:
    domains: dict[str, Domain] = {
        "a": Categories(*range(6000), missing=False),
        "b": Categories(*range(6000), missing=False),
    }
    codes = {name: np.random.default_rng(0).integers(0, 6000, 4000) for name in domains}
    found = release(codes, domains, (("a",), ("b",)), epsilon=0.5, neighboring=neighboring, mode=mode, key=key)
    noise = np.concatenate([
        counts - np.bincount(codes[name], minlength=6000) for name, counts in zip("ab", found.counts, strict=True)
    ])  # fmt: skip
    law = stats.dlaplace(1 / scale)
    spread = noise + np.random.default_rng(1).random(len(noise))
    p = stats.kstest(spread, lambda at: law.cdf(np.floor(at) - 1) + (at % 1) * law.pmf(np.floor(at))).pvalue
    assert p > (1e-3 if key else 1e-6)


def test_the_tables_of_one_release_have_noise_of_their_own() -> None:
    domains: dict[str, Domain] = {name: Categories(*range(500), missing=False) for name in "ab"}
    codes = {name: np.zeros(1, np.int64) for name in domains}
    found = release(codes, domains, (("a",), ("b",)), epsilon=1.0, neighboring=Neighboring.ADD_REMOVE, key=KEY)
    assert abs(np.corrcoef(*found.counts)[0, 1]) < 0.2


def test_the_number_of_rows_is_given_away_only_where_it_is_public() -> None:
    for mode, neighboring, rows, size in (
        (Mode.REPAIRED, Neighboring.ADD_REMOVE, None, None),
        (Mode.REPAIRED, Neighboring.REPLACE_ONE, None, 12),
        (Mode.LITERAL, Neighboring.ADD_REMOVE, None, 12),
        (Mode.LITERAL, Neighboring.ADD_REMOVE, 30, None),
    ):
        found = made(neighboring, mode, Ways.ONE, rows=rows)
        assert found.size == size
        assert found.to_json()["size"] == size
        unaccounted = mode is Mode.LITERAL and rows is None
        assert isinstance(found.guarantee(), Unaccounted) == unaccounted
    drawn = [made(Neighboring.ADD_REMOVE, Mode.REPAIRED, Ways.ONE, epsilon=epsilon) for epsilon in (0.5, 100.0)]
    counts = [len(each.codes(None, np.random.default_rng(0))["sex"]) for each in drawn]
    assert counts[0] != 12  # noise of scale 6: the number of rows is itself noisy
    assert counts[1] == 12


def test_a_total_that_noise_drowns_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ESTIMATED", 1000)
    found = [
        release(
            coded(RECORDS), DOMAINS, (("sex",), ("sick",), ("ward",)), epsilon=1e-5,
            neighboring=Neighboring.ADD_REMOVE, key=bytes([at]) * 16,
        ).sample(seed=0)
        for at in range(8)
    ]  # fmt: skip
    assert {len(each) for each in found} == {1, 1000}  # far below zero, or far above


def test_a_huge_budget_returns_the_true_tables() -> None:
    found = made(Neighboring.REPLACE_ONE, Mode.REPAIRED, Ways.ONE_AND_TWO, epsilon=1e5)
    for margin, counts in zip(found.margins, found.counts, strict=True):
        np.testing.assert_array_equal(counts, contingency(coded(RECORDS), margin, shape_of(margin, SIZES)))


def test_without_a_key_every_table_is_noised_by_opendp(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float]] = []

    def spy(counts: np.ndarray, scale: Fraction, *, sensitivity: int, epsilon: float) -> np.ndarray:
        asked.append((sensitivity, epsilon))
        return counts

    monkeypatch.setattr(module, "add_by_opendp", spy)
    margins: tuple[Margin, ...] = (("sex",), ("sick", "ward"))
    release(coded(RECORDS), DOMAINS, margins, epsilon=1.0, neighboring=Neighboring.REPLACE_ONE)
    assert asked == [(2, 0.5), (2, 0.5)]


def test_what_was_released_comes_back_from_json_and_draws_the_same_rows() -> None:
    for mode, ways in itertools.product(Mode, Ways):
        found = made(Neighboring.REPLACE_ONE, mode, ways)
        again = Released.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
        assert again.guarantee() == found.guarantee()
        one, other = (each.sample(50, seed=3) for each in (found, again))
        assert one.equals(other)


def test_more_rows_cost_nothing() -> None:
    found = made(Neighboring.REPLACE_ONE, Mode.REPAIRED, Ways.TWO)
    before = found.to_json(), found.guarantee()
    assert [len(found.sample(rows, seed=rows)) for rows in (1, 10, 5000)] == [1, 10, 5000]
    assert (found.to_json(), found.guarantee()) == before
    with pytest.raises(ValueError, match="rows are to be drawn"):
        found.sample(0)


def test_a_bad_request_releases_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "add_by_opendp", lambda *_, **__: pytest.fail("something was released"))
    margins: tuple[Margin, ...] = (("sex",), ("sick", "ward"))
    for wrong in ({"epsilon": -1.0}, {"epsilon": float("nan")}, {"epsilon": 1.0, "rows": 0}):
        with pytest.raises(ValueError, match=r"epsilon is|rows is"):
            release(coded(RECORDS), DOMAINS, margins, neighboring=Neighboring.ADD_REMOVE, **wrong)
