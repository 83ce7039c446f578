"""A claim is found again only where nothing has changed that it depends on."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attacks.membership.population import Population
from attacks.protocol import Guesses, MembershipScores
from attacks.target import Target
from attacks.transcript import Transcript
from auditor.evidence.attack_cache import KeptClaims
from auditor.subject import AttackTarget
from defenses.authentication import Authenticator
from defenses.engine.storage import Folder
from defenses.records import Image, Records

KEY = Authenticator(bytes(32))


def records(seed: int) -> Records:
    rng = np.random.default_rng(seed)
    return Records(rng.random((5, 1, 2, 2)).astype(np.float32), rng.integers(0, 2, 5), 2, Image())


TARGET = Target(
    nn.Linear(4, 2), records(0), "d", population=records(1), transcript=Transcript({"weight": torch.ones(1, 2)})
)


def key(target: Target, attack: Population | None = None) -> str:
    question = AttackTarget(target, np.ones(5, dtype=np.bool_))
    return KeptClaims(Folder(Path(), KEY)).key(attack or Population(), question, "plan", device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        lambda target: replace(target, digest="e"),
        lambda target: replace(target, candidates=records(2)),
        lambda target: replace(target, candidates=replace(target.candidates, kind=Image(-1, 1))),
        lambda target: replace(target, population=records(2)),
        lambda target: replace(target, population=None),
        lambda target: replace(target, synthetic=records(2)),
        lambda target: replace(target, transcript=replace(target.transcript, clipped=True)),
    ],
)
def test_whatever_an_attack_can_see_names_the_claim(change: Callable[[Target], Target]) -> None:
    assert key(TARGET) == key(replace(TARGET))
    assert key(change(TARGET)) != key(TARGET)
    assert key(TARGET, Population(smallest=7)) != key(TARGET)


def test_what_is_kept_comes_back_whole(tmp_path: Path) -> None:
    kept = KeptClaims(Folder(tmp_path / "claims", KEY))
    guesses = Guesses(np.array([1, 2]), np.array([0, 2]), "colour", ("one remark", "another"))
    kept.keep("g", guesses, 2.5)
    kept.keep("m", MembershipScores(np.array([0.5, -np.inf])), 1.0)
    found, seconds = kept.find("g") or (None, 0.0)
    assert isinstance(found, Guesses)
    assert seconds == 2.5
    assert (found.hidden, found.notes) == ("colour", ("one remark", "another"))
    assert np.array_equal(found.values, guesses.values)
    scores, _ = kept.find("m") or (None, 0.0)
    assert isinstance(scores, MembershipScores)
    assert scores.scores.tolist() == [0.5, -np.inf]
    assert kept.find("absent") is None


def test_scores_that_somebody_else_put_there_are_not_believed(tmp_path: Path) -> None:
    """A claim decides the verdict: one that another key sealed, or that was changed or renamed, is made again."""
    kept = KeptClaims(Folder(tmp_path, KEY))
    kept.keep("m", MembershipScores(np.array([9.0, 0.0])), 1.0)
    KeptClaims(Folder(tmp_path, Authenticator(bytes([1] * 32)))).keep("forged", MembershipScores(np.zeros(2)), 1.0)
    whole = (tmp_path / "m.claim").read_bytes()
    (tmp_path / "renamed.claim").write_bytes(whole)
    (tmp_path / "changed.claim").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    (tmp_path / "cut.claim").write_bytes(whole[:40])
    (tmp_path / "empty.claim").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo.claim")
    assert kept.find("m") is not None
    for name in ("forged", "renamed", "changed", "cut", "empty", "fifo"):
        assert kept.find(name) is None, name


@pytest.mark.parametrize("there", ["file", "open folder", "folder of that name"])
def test_a_claim_that_cannot_be_kept_is_no_failure(there: str, tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    if there == "file":
        folder.write_text("")
    else:
        (folder / "m.claim").mkdir(parents=True)
        folder.chmod(0o777 if there == "open folder" else 0o700)
    kept = KeptClaims(Folder(folder, KEY))
    kept.keep("m", MembershipScores(np.zeros(2)), 1.0)
    assert kept.find("m") is None
