"""Attacks on what participants of a training sent: what they claim and adapt to, and whom they do not apply to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.gradient_leakage.batched_adam import SignedAdam
from attacks.gradient_leakage.dlg import DLG
from attacks.gradient_leakage.first_layer import FirstLayer, first_layer_inputs
from attacks.gradient_leakage.gradient_protections import clipped, noised, sparsified
from attacks.gradient_leakage.idlg import IDLG
from attacks.gradient_leakage.inverting_gradients import InvertingGradients
from attacks.gradient_leakage.shared_gradients import local_updates, shared_gradients, shared_under
from attacks.protocol import Attack, Reconstructions
from attacks.target import Target
from attacks.transcript import Transcript
from attacks.view import View, expose
from auditor import datasets
from defenses.architectures import Architecture
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.gradients import ClippedGaussian
from defenses.records import Image, Records, Table

FEATURES, CLASSES = 12, 4
SEARCHES = (DLG(evaluations=100, restarts=1), IDLG(evaluations=100), InvertingGradients(evaluations=200, restarts=1))
EVERY = (*SEARCHES, FirstLayer())


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(FEATURES, 40), nn.Sigmoid(), nn.Linear(40, CLASSES))
    for parameter in made.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    return made


@pytest.fixture(scope="module")
def rows() -> tuple[Tensor, Tensor]:
    """Six participants with one row of a table each."""
    torch.manual_seed(1)
    return torch.rand(6, 1, FEATURES), torch.randint(CLASSES, (6, 1))


def double(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Gradients in float64, as who computes carefully shares them."""
    shared = shared_gradients(net.double(), x.double(), y)
    net.float()
    return shared


def seen(attack: Attack, net: nn.Module, transcript: Transcript, kind: Image | Table | None = None) -> View:
    shape = (FEATURES,) if kind is None else (1, 28, 28)
    nobody = Records(np.zeros((1, *shape), np.float32), np.zeros(1, np.int64), CLASSES, kind or Table((), "y", ()))
    if isinstance(kind, Image):
        nobody = replace(nobody, classes=10)
    return expose(Target(net, nobody, "d", transcript=transcript), attack.requires)


def run(attack: Attack, net: nn.Module, transcript: Transcript, kind: Image | None = None) -> Reconstructions:
    claim = attack.run(seen(attack, net, transcript, kind), rng=np.random.default_rng(0))
    assert isinstance(claim, Reconstructions)
    return claim


def worst(claim: Reconstructions, x: Tensor) -> np.ndarray:
    """Largest error of each record, in the order of participants."""
    errors: np.ndarray = np.abs(claim.x.reshape(len(claim.x), -1) - x.flatten(0, 1).flatten(1).numpy()).max(axis=1)
    return errors


def decibels(claim: Reconstructions, x: Tensor) -> np.ndarray:
    found: np.ndarray = -10 * np.log10(((claim.x - x.flatten(0, 1).numpy()) ** 2).reshape(len(claim.x), -1).mean(1))
    return found


@pytest.mark.parametrize("attack", EVERY, ids=lambda attack: attack.name)
def test_a_claim_holds_every_participants_record_in_order(
    attack: Attack, net: nn.Module, rows: tuple[Tensor, Tensor]
) -> None:
    x, y = rows
    transcript = Transcript(double(net, x, y))
    claim, again = run(attack, net, transcript), run(attack, net, transcript)
    assert claim.x.shape == (6, FEATURES)
    assert claim.x.dtype == np.float32
    assert np.array_equal(claim.x, again.x)
    assert np.median(worst(claim, x)) < 0.02  # another participant's record is much farther away
    assert claim.notes
    assert claim.x.min() >= 0
    assert claim.x.max() <= 1
    assert not attack.usual


@pytest.mark.parametrize("attack", EVERY, ids=lambda attack: attack.name)
def test_what_it_is_shown(attack: Attack, net: nn.Module, rows: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(NotDisclosedError, match="records in question"):
        _ = seen(attack, net, Transcript(double(net, *rows))).candidates
    silent = Records(np.zeros((1, FEATURES), np.float32), np.zeros(1, np.int64), CLASSES, Table((), "y", ()))
    with pytest.raises(NotApplicableError, match="gradients"):
        expose(Target(net, silent, "d"), attack.requires)


@pytest.mark.parametrize("attack", SEARCHES, ids=lambda attack: attack.name)
def test_batches_give_as_many_records_as_were_used(attack: Attack, net: nn.Module) -> None:
    torch.manual_seed(2)
    x, y = torch.rand(3, 2, FEATURES), torch.tensor([[0, 1], [1, 2], [3, 3]])
    claim = run(replace(attack, evaluations=5), net, Transcript(double(net, x, y), batch_size=2))  # type: ignore[call-arg]
    assert claim.x.shape == (6, FEATURES)
    if attack.name != "dlg":
        assert any("likeliest counts in batches of 2" in note for note in claim.notes)


def test_notes_say_what_can_be_relied_on(net: nn.Module, rows: tuple[Tensor, Tensor]) -> None:
    shared = double(net, *rows)
    clear = run(IDLG(evaluations=150), net, Transcript(shared))
    assert clear.notes[0].startswith("6 of 6 searches left less than 1e-08 of the distance")
    assert clear.notes[1] == "The label of 6 of 6 participants follows exactly from what they sent."
    drowned = noised(shared, std=1.0, generator=torch.Generator().manual_seed(0))
    claim = run(IDLG(evaluations=20), net, Transcript(drowned, noise=1.0))
    assert claim.notes[0].startswith("0 of 6")
    assert "noise of standard deviation 1" in claim.notes[1]
    assert "0 of 6 participants follows exactly" in claim.notes[2]
    cut = shared_under(net, rows[0].reshape(3, 2, -1), rows[1].reshape(3, 2), ClippedGaussian(1.0, 0.0), seed=0)
    several = Transcript(cut, batch_size=2, local_steps=2, clipped=True)
    assert any("every local step" in note for note in run(IDLG(evaluations=2), net, several).notes)


@pytest.mark.parametrize("attack", SEARCHES, ids=lambda attack: attack.name)
def test_a_gradient_of_zero_is_nothing_to_match(attack: Attack, net: nn.Module, rows: tuple[Tensor, Tensor]) -> None:
    plain = double(net, *rows)
    silent = {
        name: value * (torch.arange(6) != 2).reshape(-1, *[1] * (value.ndim - 1)) for name, value in plain.items()
    }
    for known in ({}, {"clipped": True}, {"sparsified": True}):
        whole, claim = (run(attack, net, Transcript(sent, **known)) for sent in (plain, silent))  # type: ignore[arg-type]
        before, after = (int(found.notes[0].split()[0]) for found in (whole, claim))
        assert after == before - 1  # the search of who is silent did converge before
        assert (claim.x[2] == 0.5).all()
        assert any("1 of 6 participants sent a gradient of zero" in note for note in claim.notes)
        assert not any("gradient of zero" in note for note in whole.notes)
        unknown = [note for note in claim.notes if "labels are unknown, and drawn at random" in note]
        assert len(unknown) == (attack.name != "dlg")
    with pytest.raises(NotApplicableError, match="gradients of all 6 participants are zero"):
        run(attack, net, Transcript({name: torch.zeros_like(value) for name, value in plain.items()}))


def test_labels_are_guessed_where_only_the_last_layer_is_silent(net: nn.Module, rows: tuple[Tensor, Tensor]) -> None:
    # As sparsification may leave it: of the label nothing is known, and the rest is matched all the same.
    sent = double(net, *rows)
    sent |= {name: torch.zeros_like(value) for name, value in sent.items() if name.startswith("2.")}
    claim = run(IDLG(evaluations=20), net, Transcript(sent, sparsified=True))
    assert claim.notes[1].startswith("6 of 6 participants sent a last layer's gradient of zero")
    assert not any("follows exactly" in note or "nothing to match" in note for note in claim.notes)


@pytest.mark.parametrize("attack", [SEARCHES[0], SEARCHES[1]], ids=lambda attack: attack.name)
def test_it_adapts_to_what_the_transcript_says(attack: Attack, net: nn.Module, rows: tuple[Tensor, Tensor]) -> None:
    # Every protection is met twice: by who is told of it, and by who takes the message for a plain gradient.
    x, y = rows
    plain = double(net, x, y)
    steps = local_updates(net.double(), x.double(), y, steps=3, learning_rate=0.3)
    net.float()
    for told in (
        Transcript(clipped(plain, max_norm=0.3), clipped=True),
        Transcript(sparsified(plain, kept=0.5), sparsified=True),
        Transcript(steps, local_steps=3, learning_rate=0.3),
    ):
        knowing, naive = run(attack, net, told), run(attack, net, Transcript(told.gradients))
        assert np.median(worst(knowing, x)) < 0.05
        assert np.median(worst(knowing, x)) < np.median(worst(naive, x)) / 4


def test_features_are_searched_in_units_of_their_range() -> None:
    torch.manual_seed(3)
    wide = nn.Sequential(nn.Flatten(), nn.Linear(784, 30), nn.Sigmoid(), nn.Linear(30, 10))
    x, y = -300 + 100 * torch.rand(3, 1, 1, 28, 28), torch.randint(10, (3, 1))
    wide[1].weight.data /= 50
    transcript = Transcript(double(wide, x, y))
    for attack, error in ((FirstLayer(), 1e-3), (IDLG(evaluations=100), 1.0)):
        claim = run(attack, wide, transcript, Image(-300.0, -200.0))
        assert worst(claim, x).max() < error


@pytest.mark.slow
def test_inverting_gradients_sees_through_relus_where_dlg_does_not(data_dir: Path) -> None:
    mnist = datasets.load("mnist", data_dir=data_dir).take(np.arange(300, 304))
    network = Architecture("cnn", {"activation": "relu"}).build((1, 28, 28), 10, seed=1).eval()
    x, y = torch.from_numpy(mnist.x)[:, None], torch.from_numpy(mnist.y)[:, None]
    transcript = Transcript(double(network, x, y))
    turned = run(InvertingGradients(evaluations=300, restarts=1), network, transcript, Image())
    matched = run(IDLG(evaluations=300), network, transcript, Image())
    assert np.median(decibels(turned, x)) > np.median(decibels(matched, x)) + 5
    assert np.median(decibels(turned, x)) > 18  # the mean digit has 12


def test_signed_steps_stop_at_the_box_and_rows_do_not_meet() -> None:
    centres = torch.tensor([[0.3, 0.8, 1.7], [-2.0, 0.5, 0.1]], dtype=torch.float64)
    weights = torch.tensor([1.0, 100.0, 1e-4], dtype=torch.float64)  # which signs do not see

    def objective(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        return (weights * (x - centres) ** 2).sum(1), 2 * weights * (x - centres)

    found = SignedAdam(0.1)(objective, torch.zeros_like(centres), evaluations=400, tolerance=0.0)
    torch.testing.assert_close(found.x, centres.clamp(0, 1), atol=2e-3, rtol=0)
    torch.testing.assert_close(found.value, objective(found.x, torch.arange(2))[0])
    assert found.evaluations.tolist() == [400, 400]


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_first_linear_layer_gives_its_input_away(dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, CLASSES)).to(dtype)
    x, y = torch.rand(16, 1, 64, dtype=dtype), torch.randint(CLASSES, (16, 1))
    for shared in (
        shared_gradients(network, x, y),
        clipped(shared_gradients(network, x, y), max_norm=1e-3),
        local_updates(network, x, y, steps=4, learning_rate=0.1),
    ):
        found = first_layer_inputs(shared["0.weight"], shared["0.bias"])
        assert float((found - x[:, 0]).abs().max()) < error
    dead = {name: torch.zeros_like(value) for name, value in shared.items()}
    assert bool(first_layer_inputs(dead["0.weight"], dead["0.bias"]).isnan().all())


def test_the_first_layer_under_noise_and_cuts(net: nn.Module, rows: tuple[Tensor, Tensor]) -> None:
    x, y = rows
    shared = clipped(double(net, x, y), max_norm=1.0)
    noisy = noised(shared, std=1e-2, generator=torch.Generator().manual_seed(0))
    told, untold = (run(FirstLayer(), net, Transcript(noisy, noise=std)) for std in (1e-2, 0.0))
    assert np.median(decibels(told, x)) > 20
    assert "not exact" in told.notes[0]
    largest = noisy["0.bias"].abs().argmax(1)
    one = noisy["0.weight"][range(6), largest] / noisy["0.bias"][range(6), largest][:, None]
    alone = Reconstructions(one.clamp(0, 1).float().numpy())
    assert np.median(decibels(told, x)) > np.median(decibels(alone, x)) + 3
    assert np.median(decibels(told, x)) >= np.median(decibels(untold, x)) - 0.5
    cut = run(FirstLayer(), net, Transcript(sparsified(shared, kept=0.5), sparsified=True))
    left = cut.x > 0
    assert left.mean() > 0.7
    assert np.abs(cut.x - x[:, 0].numpy())[left].max() < 1e-6
    silent = {name: value.clone() for name, value in shared.items()}
    for value in silent.values():
        value[2] = 0
    claim = run(FirstLayer(), net, Transcript(silent))
    assert (claim.x[2] == 0.5).all()
    assert claim.notes[0] == "5 of 6 records follow exactly."
    assert "1 of 6 participants sent" in claim.notes[1]


class Changed(nn.Module):
    """A network that centres its records before the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.layer(x - 0.5)
        return made


def test_whom_the_first_layer_does_not_give_away(net: nn.Module, rows: tuple[Tensor, Tensor]) -> None:
    x, y = rows
    with pytest.raises(NotApplicableError, match="from 2 the first layer gives a mixture"):
        run(FirstLayer(), net, Transcript(shared_gradients(net, x.reshape(3, 2, -1), y.reshape(3, 2)), batch_size=2))
    for network, reason in (
        (nn.Sequential(nn.Linear(FEATURES, CLASSES, bias=False)), "Linear without one"),
        (nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 1, 3), nn.Flatten(), nn.Linear(10, 4)), "is Conv1d"),
        (Changed(), "was changed before"),
    ):
        with pytest.raises(NotApplicableError, match=reason):
            run(FirstLayer(), network, Transcript(shared_gradients(network, x, y)))


@pytest.mark.parametrize("kind", [DLG, IDLG, InvertingGradients])
@pytest.mark.parametrize("settings", [{"evaluations": 0}, {"restarts": 0}, {"tolerance": -1.0}, {"smoothness": -1.0}])
def test_wrong_settings(kind: type[Attack], settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        kind(**settings)  # type: ignore[call-arg]


def test_wrong_step_size() -> None:
    with pytest.raises(ValueError, match="step_size is 0"):
        InvertingGradients(step_size=0.0)
