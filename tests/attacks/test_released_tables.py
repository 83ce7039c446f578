"""Attacks on released rows: planted copies are found, independent samples are not; each rule against a naive one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import attacks.synthetic_data.linkability as linkability
import attacks.synthetic_data.nearest_synthetic as nearest
from attacks.inference.attribute_inference import codes_of, hidden_column
from attacks.protocol import Attack, Guesses, MembershipScores, Predicates
from attacks.synthetic_data.linkability import Linkability, column_distances, links
from attacks.synthetic_data.nearest_synthetic import NearestSynthetic, distances, nearness_scores
from attacks.synthetic_data.singling_out import (
    AT_LEAST,
    AT_MOST,
    EQUAL,
    Conditions,
    SinglingOut,
    cells_of,
    singling_out,
)
from attacks.synthetic_data.synthetic_attribute_inference import SyntheticAttributeInference, votes
from attacks.target import Target
from attacks.view import expose
from defenses.errors import NotApplicableError
from defenses.records import BoolArray, Column, Image, Records, Table

COLOUR = Column("colour", ("red", "green", "blue"), 0, 1, 2, 3)
SIZE = Column("size", ("s", "l"), 0, 1, 5, 2)
KIND = Table((Column("age", (), 0, 100, 0, 1), Column("pay", (), 0, 9, 1, 1), COLOUR, SIZE), "y", ("0", "1"))
MEMBERSHIP = [NearestSynthetic(), NearestSynthetic(loneliness=0.5), Linkability()]
EVERY = [*MEMBERSHIP, SinglingOut(), SyntheticAttributeInference("colour")]

MakeRelease = Callable[[int, float], tuple[Target, BoolArray]]


def things(count: int, seed: int) -> Records:
    rng = np.random.default_rng(seed)
    numbers = rng.random((count, 2)).round(2)
    blocks = [np.eye(width)[rng.integers(0, width, count)] for width in (3, 2)]
    return Records(np.column_stack([numbers, *blocks]).astype(np.float32), rng.integers(0, 2, count), 2, KIND)


def joined(*parts: Records) -> Records:
    return replace(parts[0], x=np.concatenate([part.x for part in parts]), y=np.concatenate([part.y for part in parts]))


def released(source: Records, seed: int, copies: float, *, size: int = 300) -> tuple[Target, BoolArray]:
    """`size` members and as many others; `size` rows, of which this share are members and the rest strangers."""
    rows = np.random.default_rng(seed).permutation(len(source))
    pool, strangers, population = (source.take(part) for part in np.split(rows[: 5 * size], [2 * size, 3 * size]))
    members = np.random.default_rng(seed).permutation(2 * size) < size
    count = round(copies * size)
    rows_out = joined(pool.take(np.flatnonzero(members)[:count]), strangers.take(np.arange(size - count)))
    return Target(torch.nn.Identity(), pool, "d", population=population, synthetic=rows_out), members


@pytest.fixture(scope="module")
def adult(data_dir: Path) -> MakeRelease:
    from auditor.datasets import load

    everybody = load("adult", data_dir=data_dir)
    return lambda seed, copies: released(everybody, seed, copies)


def made(seed: int, copies: float) -> tuple[Target, BoolArray]:
    return released(things(1500, seed), seed, copies)


def scores(attack: Attack, target: Target) -> np.ndarray:
    claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(0))
    assert isinstance(claim, MembershipScores)
    return claim.scores


def singled(attack: SinglingOut, target: Target, members: BoolArray) -> tuple[float, float]:
    """How many conditions exactly one member meets, and exactly one of the others."""
    claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(0))
    assert isinstance(claim, Predicates)
    assert len(claim.matches) > 20
    return tuple(float((claim.matches[:, some].sum(axis=1) == 1).mean()) for some in (members, ~members))  # type: ignore[return-value]


def guess(attack: SyntheticAttributeInference, target: Target) -> Guesses:
    return attack.run(expose(target, attack.requires), rng=np.random.default_rng(0))


# ---------------------------------------------------------------- planted copies, and none


@pytest.mark.parametrize(("copies", "least", "runs"), [(0.1, 0.52, 6), (0.5, 0.67, 2), (1.0, 0.9, 1)])
@pytest.mark.parametrize("attack", MEMBERSHIP, ids=["nearest", "lonely", "linkability"])
def test_copies_of_members_are_found(
    attack: Attack, copies: float, least: float, runs: int, adult: MakeRelease
) -> None:
    for make in (made, adult):
        found = [roc_auc_score(m, scores(attack, target)) for target, m in (make(seed, copies) for seed in range(runs))]
        assert np.mean(found) > least


@pytest.mark.parametrize("attack", MEMBERSHIP, ids=["nearest", "lonely", "linkability"])
def test_an_independent_sample_is_no_leak(attack: Attack, adult: MakeRelease) -> None:
    runs = 20
    attack = replace(attack, splits=3) if isinstance(attack, Linkability) else attack
    found = np.array([roc_auc_score(m, scores(attack, target)) for target, m in (adult(s, 0.0) for s in range(runs))])
    assert abs(found.mean() - 0.5) < 3 * found.std(ddof=1) / np.sqrt(runs)
    assert found.std(ddof=1) < 0.05


@pytest.mark.parametrize("columns", [1, 4])
def test_copies_are_singled_out_and_strangers_are_not(columns: int, adult: MakeRelease) -> None:
    attack = SinglingOut(predicates=200, columns=columns)
    for copies, least, most in ((1.0, 0.4, 1.0), (0.5, 0.1, 0.6), (0.0, -0.1, 0.1)):
        gaps = [np.subtract(*singled(attack, *adult(seed, copies))) for seed in range(8)]
        assert least < np.mean(gaps) < most
    target, members = adult(0, 1.0)
    assert singled(attack, target, members)[0] == 1  # what singles out a row of the training data itself is right


def test_copies_give_a_hidden_column_away(adult: MakeRelease) -> None:
    for make, name in ((made, "colour"), (adult, "occupation")):
        for copies, least, most in ((1.0, 0.5, 0.8), (0.5, 0.2, 0.5), (0.1, 0.02, 0.15), (0.0, -0.03, 0.03)):
            gains = []
            for seed in range(2 if copies < 0.5 else 1):
                target, members = make(seed, copies)
                found = guess(SyntheticAttributeInference(name), target)
                truth = codes_of(target.candidates.x, hidden_column(target.candidates.kind, name))
                right = [(guesses == truth)[members].mean() for guesses in (found.values, found.without_target)]
                gains.append(right[0] - right[1])
                elsewhere = [(guesses == truth)[~members].mean() for guesses in (found.values, found.without_target)]
                assert abs(elsewhere[0] - elsewhere[1]) < 0.05
            assert least < np.mean(gains) < most


# ---------------------------------------------------------------- what each rule says


def test_equal_records_rank_by_how_lonely_they_are() -> None:
    apart = np.array([[0.0, 0.1, 0.1], [0.0, 0.9, 0.9], [0.2, 0.9, 0.9], [0.1, 0.1, 0.1]])
    assert nearness_scores(apart).argsort().tolist() == [2, 3, 0, 1]
    assert nearness_scores(apart, loneliness=1.0).argsort().tolist() == [3, 0, 2, 1]
    assert nearness_scores(apart[:, :1]).tolist() == [0.0, 0.0, -0.2, -0.1]
    with pytest.raises(ValueError, match="loneliness is -1"):
        NearestSynthetic(loneliness=-1)


def test_the_distance_counts_every_column_and_the_label_alike() -> None:
    a, b = things(20, 0), things(30, 1)
    found = distances(a, b)
    for i, j in ((0, 0), (3, 7), (19, 29)):
        ages = np.abs(a.x[i, :2] - b.x[j, :2]).sum()
        others = (a.x[i, 2:5] != b.x[j, 2:5]).any(), (a.x[i, 5:] != b.x[j, 5:]).any(), a.y[i] != b.y[j]
        assert found[i, j] == pytest.approx((ages + sum(others)) / 5)
    assert np.allclose(column_distances(a, b).mean(axis=0), found)
    flat = [replace(part, kind=Table((), "y", ())) for part in (a, b)]
    assert distances(*flat)[3, 7] == pytest.approx((((a.x[3] - b.x[7]) ** 2).sum() + (a.y[3] != b.y[7])) / 8)


def test_links_are_those_of_growing_neighbourhoods() -> None:
    # Look at all rows within the k-th distance of either half, k = 1, 2, ..., until the two sets meet.
    rng = np.random.default_rng(0)
    apart = rng.integers(0, 4, (4, 30, 25)) / 4.0
    half = np.array([True, False, False, True])
    one, other = apart[half].sum(axis=0), apart[~half].sum(axis=0)
    needed, distance = links(apart, half)
    for i in range(30):
        places = [[sum(d <= here for d in side[i]) for here in side[i]] for side in (one, other)]
        k = next(k for k in range(1, 26) if any(max(pair) <= k for pair in zip(*places, strict=True)))
        assert needed[i] == k
        assert any(
            distance[i] == pytest.approx((one + other)[i, j] / 4) and max(places[0][j], places[1][j]) == k
            for j in range(25)
        )


def test_a_record_is_linked_by_a_row_that_equals_it_in_both_halves_and_no_other() -> None:
    target, members = made(0, 1.0)
    claim = Linkability().run(expose(target, Linkability().requires), rng=np.random.default_rng(0))
    linked = claim.scores > -1.5
    assert linked[members].mean() > 0.3
    assert linked[~members].mean() < 0.1
    assert claim.notes[0].startswith(f"{int(linked.sum())} of 600 records are linked by a single released row")


def test_conditions_single_out_exactly_one_row_each() -> None:
    rows = cells_of(things(200, 3))
    numeric = np.array([True, True, False, False, False])
    alone = int(np.any([(column[:, None] == column).sum(axis=1) == 1 for column in rows.T], axis=0).sum())
    for columns in (1, 2, 5):
        found = singling_out(rows, numeric, wanted=60, columns=columns, rng=np.random.default_rng(0))
        met = np.array([[naive(found, i, row) for row in rows] for i in range(len(found))])
        assert np.array_equal(met, found.met_by(rows))
        assert (met.sum(axis=1) == 1).all()
        assert (met.sum(axis=0) <= 1).all()  # a row is singled out once
        assert len(found) == {1: alone, 2: 14, 5: 60}[columns]
        assert all(len(set(some)) == columns for some in found.columns)
        assert (found.senses[~numeric[found.columns]] == EQUAL).all()
    assert set(singling_out(rows, numeric, wanted=500, columns=1, rng=np.random.default_rng(0)).columns[:, 0]) <= {0, 1}


def naive(conditions: Conditions, number: int, row: np.ndarray) -> bool:
    compare = {AT_MOST: np.less_equal, EQUAL: np.equal, AT_LEAST: np.greater_equal}
    parts = zip(conditions.columns[number], conditions.senses[number], conditions.values[number], strict=True)
    return all(bool(compare[sense](row[column], value)) for column, sense, value in parts)


def test_few_rows_give_few_conditions_and_equal_rows_none() -> None:
    target, _ = made(0, 0.0)
    one = replace(target, synthetic=things(1, 0))
    claim = SinglingOut(columns=9).run(expose(one, SinglingOut().requires), rng=np.random.default_rng(0))
    assert claim.notes == ("1 of 500 conditions on 5 columns single out a released row.",)
    twice = replace(target, synthetic=joined(things(9, 0), things(9, 0)))
    claim = SinglingOut().run(expose(twice, SinglingOut().requires), rng=np.random.default_rng(0))
    assert claim.matches.shape == (0, 600)
    with pytest.raises(ValueError, match="1 to 5 columns"):
        singling_out(cells_of(things(9, 0)), np.ones(5, bool), wanted=5, columns=6, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="predicates is 0"):
        SinglingOut(predicates=0)


def test_rows_vote_by_how_near_they_are() -> None:
    # One record; rows that equal it but for the colour, and 0 or 0.5 in age; the nearest stranger is 1 away in age.
    x = np.array([[0.0, 0.3, 0, 0, 0, 1, 0]], dtype=np.float32)
    rows = np.repeat(x, 4, axis=0)
    rows[:, 0], rows[:, 2:5] = (0.0, 0.5, 0.5, 1.0), np.eye(3)[[2, 1, 1, 0]]
    asked, out, stranger = (Records(part, np.zeros(len(part), np.int64), 2, KIND) for part in (x, rows[:3], rows[3:]))
    found = votes(asked, out, stranger, COLOUR, reach=0.2)
    assert np.allclose(found, [[0.0, 2 * np.exp(-0.5 / 0.2), 1.0]])
    assert np.allclose(votes(asked, out, out, COLOUR, reach=0.2), [[0.0, 0.0, 1.0]])  # a stranger equals the record


def test_a_row_that_equals_the_record_overrules_the_imputation() -> None:
    target, members = made(0, 1.0)
    found = guess(SyntheticAttributeInference("colour"), target)
    truth = codes_of(target.candidates.x, COLOUR)
    assert (found.values == truth)[members].mean() > 0.98
    assert (found.without_target == truth)[members].mean() < 0.45
    assert found.hidden == "colour"


@pytest.mark.parametrize("attack", EVERY, ids=lambda attack: attack.name)
def test_neither_the_order_of_candidates_nor_that_of_parts_matters(
    attack: Attack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(target: Target) -> np.ndarray:
        claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(0))
        if isinstance(claim, MembershipScores):
            return claim.scores
        return claim.matches.T if isinstance(claim, Predicates) else claim.values  # type: ignore[union-attr]

    target, _ = made(5, 0.5)
    whole = said(target)
    order = np.random.default_rng(9).permutation(600)
    assert np.allclose(said(replace(target, candidates=target.candidates.take(order))), whole[order])
    monkeypatch.setattr(nearest.in_parts, "__kwdefaults__", {"pairs": 1000})
    monkeypatch.setattr(linkability, "_PAIRS", 1000)
    assert np.allclose(said(target), whole)


@pytest.mark.parametrize("attack", EVERY, ids=lambda attack: attack.name)
def test_what_the_attack_lacks_is_named(attack: Attack) -> None:
    target, _ = made(0, 0.0)
    with pytest.raises(NotApplicableError, match="synthetic"):
        expose(replace(target, synthetic=None), attack.requires)
    assert target.synthetic is not None
    bare = replace(target, synthetic=target.synthetic.take(np.arange(0)))
    with pytest.raises(NotApplicableError, match="none was released"):
        attack.run(expose(bare, attack.requires), rng=np.random.default_rng(0))


@pytest.mark.parametrize("attack", [Linkability(), SinglingOut()], ids=lambda attack: attack.name)
def test_images_have_no_columns(attack: Attack) -> None:
    images = Records(np.zeros((4, 1, 3, 3), np.float32), np.zeros(4, np.int64), 2, Image())
    target = Target(torch.nn.Identity(), images, "d", synthetic=images)
    with pytest.raises(NotApplicableError, match="columns"):
        attack.run(expose(target, attack.requires), rng=np.random.default_rng(0))
    assert len(scores(NearestSynthetic(), target)) == 4


@pytest.mark.parametrize("wrong", [lambda: Linkability(0), lambda: SyntheticAttributeInference("colour", reach=0)])
def test_wrong_settings(wrong: Callable[[], Attack]) -> None:
    with pytest.raises(ValueError, match="must be"):
        wrong()


def test_columns_that_cannot_be_guessed_are_refused() -> None:
    target, _ = made(0, 0.0)
    with pytest.raises(NotApplicableError, match="'age', which is numeric"):
        guess(SyntheticAttributeInference("age"), target)
    with pytest.raises(NotApplicableError, match="columns are age, pay, colour, size"):
        guess(SyntheticAttributeInference("shape"), target)
    assert target.population is not None
    empty = replace(target, population=target.population.take(np.arange(0)))
    with pytest.raises(NotApplicableError, match="the population is empty"):
        guess(SyntheticAttributeInference("colour"), empty)
