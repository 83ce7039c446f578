"""Bad input: every attack that discovery finds gives a finite claim or one clear sentence, never a NaN."""

import copy
import dataclasses
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.capabilities import Capability, implied_capabilities
from attacks.gradient_leakage.shared_gradients import shared_gradients
from attacks.protocol import Attack, Claim, ExtractedModel, Guesses, MembershipScores, Predicates, Reconstructions
from attacks.recorded_models import RecordedShadows
from attacks.registry import registered_attacks
from attacks.target import Target
from attacks.transcript import Transcript
from attacks.view import expose
from defenses.architectures import Architecture
from defenses.ensemble import module_logits
from defenses.errors import AuditError
from defenses.records import Column, Image, Records, Table

HERE = Path(__file__).resolve().parents[2]
COLUMNS = (*(Column(name, (), 0, 1, place, 1) for place, name in enumerate("abc")), Column("d", ("u", "v"), 0, 1, 3, 2))
QUICK = {"attribute": "d", "evaluations": 6, "steps": 6, "samples": 10, "queries": (10, 30), "epochs": 1, "restarts": 1}


def quick(kind: type[Attack]) -> Attack:
    fields = {field.name for field in dataclasses.fields(kind)}
    if kind.claims is not MembershipScores:
        return kind(**{name: value for name, value in QUICK.items() if name in fields})
    few = {"shadows": 4, "iterations": 1, "evaluations": 10, "copies": 2, "splits": 2}
    return kind(**{name: value for name, value in few.items() if name in fields})


EVERY = [quick(kind) for kind in registered_attacks().values()]


def records(count: int, *, image: bool, seed: int) -> Records:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    if image:
        x = rng.random((count, 1, 8, 8))
    else:
        x = np.column_stack([rng.random((count, 3)), np.eye(2)[rng.integers(0, 2, count)]])
    return Records(x.astype(np.float32), y, 3, Image() if image else Table(COLUMNS, "y", ("p", "q", "r")))


def sound(*, image: bool) -> Target:
    """A target that discloses everything, and with which nothing is wrong."""
    rng, candidates = np.random.default_rng(0), records(50, image=image, seed=1)
    population = records(40, image=image, seed=2)
    model = Architecture("mlp", {"hidden": [8]}).build(candidates.shape, 3, seed=1).eval()
    x, y = torch.from_numpy(candidates.x[:3])[:, None], torch.from_numpy(candidates.y[:3])[:, None]
    return Target(
        model,
        candidates,
        "d",
        population=population,
        shadows=RecordedShadows(rng.normal(size=(4, 50, 3)), rng.random((4, 50)) < 0.5, rng.normal(size=(4, 40, 3))),
        transcript=Transcript(shared_gradients(model, x, y)),
        synthetic=candidates.take(np.arange(20)),
    )


SOUND = {"table": sound(image=False), "image": sound(image=True)}


class Bent(nn.Module):
    """A network whose answers something is done to."""

    def __init__(self, inner: nn.Module, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.bend = inner, bend

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(self.inner(x))


class Deaf(nn.Module):
    """A network that gives the same answer to every record, whatever its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, 1.0, 3.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.bias.expand(len(x), -1)


Change = Callable[[Target], Target]


def deaf(target: Target) -> Target:
    return replace(target, model=Deaf().eval(), transcript=Transcript({"bias": torch.eye(3) - 0.2}))


def bent(bend: Callable[[Tensor], Tensor]) -> Change:
    """Do something to the answers, and call parameters as the messages do."""

    def change(target: Target) -> Target:
        assert target.transcript is not None
        sent = {f"inner.{name}": value for name, value in target.transcript.gradients.items()}
        return replace(target, model=Bent(target.model, bend).eval(), transcript=Transcript(sent))

    return change


def filled(value: float, rows: int) -> Callable[[Tensor], Tensor]:
    return lambda logits: torch.where(torch.arange(len(logits))[:, None] < rows, value, logits)


def constant(target: Target) -> Target:
    model = copy.deepcopy(target.model)
    for value in model.parameters():
        nn.init.zeros_(value)
    return replace(target, model=model)


def cut(*, asked: int = 50, outside: int = 40) -> Change:
    """Keep the first records, and what shadow models say of them."""

    def change(target: Target) -> Target:
        shadows, population = target.shadows, target.population
        assert isinstance(shadows, RecordedShadows)
        assert population is not None
        return replace(
            target,
            candidates=target.candidates.take(np.arange(asked)),
            population=population.take(np.arange(outside)),
            shadows=RecordedShadows(
                shadows.logits[:, :asked], shadows.members[:, :asked], shadows.population[:, :outside]
            ),
        )

    return change


def released(places: list[int]) -> Change:
    return lambda target: replace(target, synthetic=target.candidates.take(np.array(places, dtype=np.int64)))


def larger(found: Records | None) -> Records:
    """The same with features that the target was not made for."""
    assert found is not None
    return replace(found, x=np.pad(found.x, [(0, 0)] * (found.x.ndim - 1) + [(0, 2)]))


def one_label(target: Target, classes: int = 3) -> Target:
    parts = {name: getattr(target, name) for name in ("candidates", "population", "synthetic")}
    return replace(target, **{name: replace(p, y=np.zeros_like(p.y), classes=classes) for name, p in parts.items()})


def messages(change: Callable[[Tensor], Tensor], *, layers: slice = slice(None)) -> Change:
    def changed(target: Target) -> Target:
        assert target.transcript is not None
        sent = list(target.transcript.gradients.items())[layers]
        return replace(target, transcript=Transcript({name: change(value) for name, value in sent}))

    return changed


@dataclass(frozen=True)
class Case:
    """What is wrong, whom it concerns, and what must be said of it; None where a finite claim will do as well."""

    change: Change
    says: str | None = None
    concerns: Callable[[Attack], bool] = lambda attack: True


def sees(*wanted: Capability) -> Callable[[Attack], bool]:
    return lambda attack: bool({*wanted} & implied_capabilities(attack.requires.access))


ANSWERS, INSIDE = sees(Capability.LABELS), sees(Capability.WEIGHTS)
SENT, MADE_UP = sees(Capability.GRADIENTS), sees(Capability.SYNTHETIC)


MATCHING = ("dlg", "idlg", "inverting_gradients")


def of_population(attack: Attack) -> bool:
    return attack.requires.population


CASES = {
    "nothing is wrong": Case(lambda target: target),
    "no candidate": Case(cut(asked=0), "no candidates: give at least 1"),
    "one candidate": Case(cut(asked=1)),
    "one class among the labels": Case(one_label),
    "a model of one class": Case(lambda target: one_label(target, 1), "at least 2 classes", ANSWERS),
    "records that are all alike": Case(
        lambda t: replace(t, candidates=replace(t.candidates, x=np.repeat(t.candidates.x[:1], 50, axis=0)))
    ),
    "candidates of another size": Case(
        lambda t: replace(t, candidates=larger(t.candidates), population=larger(t.population)),
        "does not take records of shape",
        lambda attack: ANSWERS(attack) and not SENT(attack),
    ),
    "population of another size": Case(
        lambda t: replace(t, population=larger(t.population)), "population records have shape", of_population
    ),
    "released records of another size": Case(
        lambda t: replace(t, synthetic=larger(t.synthetic)), "released records have shape", MADE_UP
    ),
    "no population": Case(cut(outside=0), "population is empty", of_population),
    "a population of one": Case(cut(outside=1), None, of_population),
    "nothing released": Case(released([]), "none was released", MADE_UP),
    "one record released": Case(released([0]), None, MADE_UP),
    "one record released again and again": Case(released([0] * 20), None, MADE_UP),
    "a constant model": Case(constant, None, ANSWERS),
    "a model that does not look at records": Case(deaf, None, ANSWERS),
    "a frozen model": Case(lambda t: replace(t, model=copy.deepcopy(t.model).requires_grad_(False)), None, ANSWERS),
    "a model without parameters": Case(lambda t: replace(t, model=nn.Flatten()), "model with parameters", ANSWERS),
    "NaN answers": Case(bent(filled(np.nan, 10**6)), "not finite", ANSWERS),
    "one NaN answer": Case(bent(filled(np.nan, 1)), "not finite", ANSWERS),
    "one infinite answer": Case(bent(filled(np.inf, 1)), "not finite", ANSWERS),
    "one answer of minus infinity": Case(bent(filled(-np.inf, 1)), "not finite", ANSWERS),
    "huge answers": Case(bent(lambda logits: 1e30 * logits), None, ANSWERS),
    "an answer too few": Case(bent(lambda logits: logits[:, 1:]), "one logit for each class", ANSWERS),
    "an answer per record": Case(bent(lambda logits: logits[:, 0]), "one logit for each class", ANSWERS),
    "answers with an axis too many": Case(bent(lambda logits: logits[:, None]), "one logit for each class", ANSWERS),
    "labels in place of logits": Case(
        bent(lambda logits: nn.functional.one_hot(logits.argmax(1), 3).float()), "can be differentiated", INSIDE
    ),
    "labels, for who only asks": Case(
        bent(lambda logits: nn.functional.one_hot(logits.argmax(1), 3).float()),
        None,
        lambda attack: ANSWERS(attack) and not INSIDE(attack),
    ),
    "rounded answers": Case(bent(torch.round), "can be differentiated", INSIDE),
    "gradients of zero": Case(messages(torch.zeros_like), None, SENT),
    "gradients of zero, for who matches them": Case(
        messages(torch.zeros_like),
        "the gradients of all 3 participants are zero",
        lambda attack: attack.name in MATCHING,
    ),
    "gradients that are NaN": Case(messages(lambda g: g * torch.nan), "3 of 3 participants sent numbers", SENT),
    "one infinite gradient": Case(
        messages(lambda g: torch.where(torch.arange(3).reshape(-1, *[1] * (g.ndim - 1)) == 1, torch.inf, g)),
        "1 of 3 participants sent numbers",
        SENT,
    ),
    "nobody sent anything": Case(messages(lambda g: g[:0]), "nobody sent one", SENT),
    "gradients of another shape": Case(messages(lambda g: g[..., :-1]), "gradients of .* have shape", SENT),
    "another number of participants for some": Case(
        messages(lambda g: g[:-1] if g.ndim > 2 else g), "one for each participant", SENT
    ),
    "gradients of another network": Case(
        messages(torch.clone, layers=slice(1, None)), "nobody sent a gradient of '1.weight'", SENT
    ),
}


def finite(claim: Claim, attack: Attack, target: Target) -> bool:
    """Say whether a claim is whole: of the right kind, about everybody, and without a value that is no number."""
    if isinstance(claim, MembershipScores):
        return claim.scores.shape == (len(target.candidates),) and bool(np.isfinite(claim.scores).all())
    if isinstance(claim, Reconstructions):
        return claim.x.shape[1:] == target.candidates.shape and bool(np.isfinite(claim.x).all())
    if isinstance(claim, Guesses):
        assert target.transcript is not None
        return len(claim.values) == (len(target.candidates) if attack.requires.candidates else 3)
    if isinstance(claim, ExtractedModel):
        said = [module_logits(one.model, target.candidates.x) for one in claim.copies]
        return all(logits.shape == (len(target.candidates), 3) and bool(np.isfinite(logits).all()) for logits in said)
    return isinstance(claim, Predicates) and claim.matches.shape[1] == len(target.candidates)


def refused(error: Exception) -> str:
    """Return what an error says, after making sure that it was raised on purpose and says what is wrong."""
    last = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    where = [last.is_relative_to(HERE / package) for package in ("attacks", "defenses")]
    assert any(where), f"raised inside of {last.name}: {error!r}"
    assert isinstance(error, AuditError | ValueError), repr(error)
    assert len(str(error)) > 30
    return str(error)


def outcome(attack: Attack, target: Target) -> Claim | str:
    """Return the claim, or what is said in its place."""
    try:
        return attack.run(expose(target, attack.requires), rng=np.random.default_rng(0))
    except Exception as error:
        return refused(error)


CONCERNED = [
    pytest.param(case, attack, kind, id=f"{case}-{attack.name}-{kind}")
    for case, of in CASES.items()
    for attack in EVERY
    for kind in SOUND
    if of.concerns(attack)
]


@pytest.mark.parametrize(("case", "attack", "kind"), CONCERNED)
def test_a_finite_claim_or_one_clear_sentence(case: str, attack: Attack, kind: str) -> None:
    target, wanted = CASES[case].change(SOUND[kind]), CASES[case].says
    found = outcome(attack, target)
    if not isinstance(found, str):
        assert wanted is None, "it should have been refused"
        assert type(found) is attack.claims
        assert finite(found, attack, target)
        assert not any("nan" in note.lower().split() for note in found.notes)
    elif wanted is not None and not re.search(wanted, found):
        assert found == outcome(attack, SOUND[kind])  # it is for another kind of records or models anyway


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_records_are_finite_or_refused(value: float) -> None:
    x = records(5, image=False, seed=0).x
    x[3, 1] = value
    with pytest.raises(ValueError, match="record 3 has a value that is not finite; impute or drop it"):
        Records(x, np.zeros(5, np.int64), 3, Image())
