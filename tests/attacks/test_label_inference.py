"""Labels read off gradients: exact for one record, counts for several, whatever the last layer has and noise adds."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.gradient_leakage.gradient_protections import clipped, noised, sparsified
from attacks.gradient_leakage.label_inference import LabelInference
from attacks.gradient_leakage.label_recovery import UNKNOWN, recover_labels
from attacks.gradient_leakage.layer_order import layers_in_order
from attacks.gradient_leakage.shared_gradients import local_updates, shared_gradients, shared_under
from attacks.protocol import Guesses
from attacks.target import Target
from attacks.threat_model import LABEL
from attacks.transcript import Transcript
from attacks.view import expose
from defenses.errors import NotApplicableError
from defenses.gradients import ClippedGaussian
from defenses.records import Records, Table

FEATURES, CLASSES = 64, 10


def network(*, bias: bool = True, activation: type[nn.Module] = nn.ReLU, gain: float = 1.0) -> nn.Module:
    """A network whose hidden layer's outputs are larger by the gain."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(FEATURES, 32), activation(), nn.Linear(32, CLASSES, bias=bias))
    net[0].weight.data *= gain
    net[2].weight.data /= gain
    return net


def data(victims: int, batch_size: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.rand(victims, batch_size, FEATURES), torch.randint(CLASSES, (victims, batch_size))


def infer(net: nn.Module, transcript: Transcript, *, classes: int = CLASSES) -> Guesses:
    nobody = Records(np.zeros((1, FEATURES), np.float32), np.zeros(1, np.int64), classes, Table((), "y", ()))
    view = expose(Target(net, nobody, "d", transcript=transcript), LabelInference.requires)
    return LabelInference().run(view, rng=np.random.default_rng(0))


def right(found: np.ndarray, y: Tensor) -> float:
    """Share of labels that were found, each as often as it is there."""
    both = [(Counter(a.tolist()) & Counter(b.tolist())).total() for a, b in zip(found, y.numpy(), strict=True)]
    return float(np.mean(both)) / y.shape[1]


@pytest.mark.parametrize(
    ("bias", "activation"), [(True, nn.ReLU), (False, nn.ReLU), (False, nn.Tanh)], ids=["bias", "rows", "longest row"]
)
def test_the_label_of_one_record_is_read_in_the_order_of_participants(bias: bool, activation: type[nn.Module]) -> None:
    net, (x, y) = network(bias=bias, activation=activation), data(40, 1)
    shared = shared_gradients(net, x, y)
    for transcript in (
        Transcript(shared),
        Transcript(clipped(shared, max_norm=1e-3), clipped=True),
        Transcript(sparsified(shared, kept=0.2), sparsified=True),
        Transcript(local_updates(net, x, y, steps=4, learning_rate=0.1), local_steps=4),
    ):
        claim = infer(net, transcript)
        assert claim.values.tolist() == y[:, 0].tolist()
        assert claim.hidden == LABEL
        sure = 40 if bias or activation is nn.ReLU else 0
        assert claim.notes[0].startswith(f"The label of {sure} of 40 participants follows exactly")
        assert any("has no bias" in note for note in claim.notes) != bias


def test_what_is_guessed_without_the_gradient_is_drawn_from_all_classes_alike() -> None:
    net, (x, y) = network(), data(250, 4)
    claim = infer(net, Transcript(shared_gradients(net, x, y), batch_size=4))
    assert np.bincount(claim.without_target, minlength=CLASSES).min() > 60
    for values in (claim.values, claim.without_target):  # both in the order that they are compared in
        assert (np.diff(values.reshape(250, 4), axis=1) >= 0).all()
    assert claim.values.dtype == claim.without_target.dtype == np.int64
    assert right(claim.values.reshape(250, 4), y) > 0.95
    assert right(claim.without_target.reshape(250, 4), y) < 0.5
    assert "likeliest counts in batches of 4, not exact" in claim.notes[0]


def test_exact_is_only_what_follows() -> None:
    net, (x, y) = network(), data(40, 1)
    signal = shared_gradients(net, x, y)["2.bias"]
    assert recover_labels(signal, batch_size=1).exact.all()
    assert not recover_labels(signal, batch_size=1, noise=1e-9).exact.any()
    drowned = noised({"bias": signal}, std=0.5, generator=torch.Generator().manual_seed(0))["bias"]
    assert not recover_labels(drowned, batch_size=1).exact.all()
    assert not recover_labels(shared_gradients(net, *data(5, 2))["2.bias"], batch_size=2).exact.any()
    with pytest.raises(ValueError, match="batch_size is 0"):
        recover_labels(signal, batch_size=0)
    with pytest.raises(ValueError, match="local_steps 0"):
        recover_labels(signal, batch_size=1, local_steps=0)


def test_labels_of_batches_are_counted_and_as_many_as_asked_for() -> None:
    net, (x, y) = network(), data(50, 8)
    y[0] = 3  # all alike: one label, eight times
    found = recover_labels(shared_gradients(net, x, y)["2.bias"], batch_size=8)
    assert found.labels.shape == (50, 8)
    assert found.labels[0].tolist() == [3] * 8
    assert right(found.labels, y) > 0.95
    # Clipping and local steps change what one record's share is, which is then searched.
    cut = shared_under(net, x, y, ClippedGaussian(0.3, 0.0), seed=0)["2.bias"]
    assert right(recover_labels(cut, batch_size=8, unknown_scale=True).labels, y) > 0.95
    assert right(recover_labels(cut, batch_size=8).labels, y) < 0.85
    update = local_updates(net, x, y, steps=5, learning_rate=0.1)["2.bias"]
    assert right(recover_labels(update, batch_size=8, local_steps=5).labels, y) > 0.95
    assert right(recover_labels(update, batch_size=8).labels, y) < 0.85


def test_noise_that_hides_the_bias_does_not_hide_the_weight() -> None:
    # Inputs of the last layer are large, so after clipping the bias's gradient is small beside the weight's.
    net, (x, y) = network(gain=20.0), data(60, 1)
    sent = shared_under(net, x, y, ClippedGaussian(1.0, 0.1), seed=0)
    claim = infer(net, Transcript(sent, clipped=True, noise=0.1))
    assert (claim.values == y[:, 0].numpy()).mean() > 0.9
    assert (recover_labels(sent["2.bias"], batch_size=1).labels[:, 0] == y[:, 0].numpy()).mean() < 0.5
    assert any("no label is certain" in note for note in claim.notes)
    assert claim.notes[0].startswith("The label of 0 of 60")
    tanh = network(activation=nn.Tanh)  # weights of either sign say nothing together, so the bias is taken
    sent = shared_under(tanh, x, y, ClippedGaussian(1.0, 0.03), seed=0)
    claim = infer(tanh, Transcript(sent, clipped=True, noise=0.03))
    assert (claim.values == y[:, 0].numpy()).mean() > 0.9


class Backwards(nn.Module):
    """A network that registers its last layer first."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(32, CLASSES)
        self.first = nn.Linear(FEATURES, 32)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(torch.relu(self.first(x)))
        return made


def test_layers_are_taken_in_the_order_in_which_records_pass_them() -> None:
    torch.manual_seed(4)
    net, (x, y) = Backwards(), data(20, 1)
    passed = layers_in_order(net, x[:, 0])
    assert [layer.path for layer in passed] == ["first", "last"]
    assert torch.equal(passed[0].taken, x[:, 0])
    assert not net.first._forward_hooks  # none is left behind
    assert infer(net, Transcript(shared_gradients(net, x, y))).values.tolist() == y[:, 0].tolist()


def test_whom_it_does_not_apply_to() -> None:
    net, (x, y) = network(), data(5, 1)
    pooled = nn.Sequential(net, nn.AvgPool1d(2))  # 5 classes, of a layer with 10 outputs
    sent = Transcript(shared_gradients(pooled, x, y % 5))
    with pytest.raises(NotApplicableError, match="one output for each of 5 classes"):
        infer(pooled, sent, classes=5)
    with pytest.raises(NotApplicableError, match="a network with parameters"):
        layers_in_order(nn.Flatten(), x[:, 0])


def test_a_gradient_of_zero_tells_nothing_even_where_the_first_class_is_the_commonest() -> None:
    net, (x, y) = network(), data(60, 2)
    sent = {name: torch.zeros_like(value) for name, value in shared_gradients(net, x, torch.zeros_like(y)).items()}
    found = infer(net, Transcript(sent, batch_size=2))
    assert np.array_equal(found.values, found.without_target)
    assert any("60 of 60 participants sent a last layer's gradient of zero" in note for note in found.notes)
    assert not any("likeliest" in note for note in found.notes)


@pytest.mark.parametrize("settings", [{}, {"unknown_scale": True}, {"local_steps": 3}, {"noise": 0.1}])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_labels_of_who_is_silent_are_unknown_and_no_class(batch_size: int, settings: dict[str, float]) -> None:
    net, (x, y) = network(), data(5, batch_size)
    signal = shared_gradients(net, x, y)["2.bias"]
    whole = recover_labels(signal, batch_size=batch_size, **settings)  # type: ignore[arg-type]
    signal[1] = 0
    found = recover_labels(signal, batch_size=batch_size, **settings)  # type: ignore[arg-type]
    assert (found.labels[1] == UNKNOWN).all()
    assert found.unknown.tolist() == [False, True, False, False, False]
    assert not found.exact[1]
    others = np.arange(5) != 1
    assert np.array_equal(found.labels[others], whole.labels[others])
    drawn = [found.guessed(CLASSES, np.random.default_rng(seed)) for seed in range(40)]
    assert all(np.array_equal(labels[others], whole.labels[others]) for labels in drawn)
    assert {*np.unique([labels[1] for labels in drawn])} == {*range(CLASSES)}
