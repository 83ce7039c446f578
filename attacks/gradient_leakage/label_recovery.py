"""Labels from the gradient of the last layer: exact for one record, the likeliest counts for several."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from attacks.gradient_leakage.layer_order import layers_in_order
from attacks.gradient_leakage.random_inputs import probes
from attacks.record_spec import RecordSpec
from attacks.transcript import Transcript
from attacks.view import View
from defenses.errors import NotApplicableError
from defenses.records import BoolArray, IntArray
from defenses.updates import Tensors

UNKNOWN = -1
"""Stands for a label of which nothing is told."""

_SCALES, _LEAST_SCALE = 60, 0.01
_GOOD_FIT = 0.1  # share of the signal's square that counts may leave over; chosen on MNIST, networks fresh to trained
_UNSCALED = 0.1  # sum of the positive entries of a signal without a scale: an untrained network's, with most classes in


@dataclass(frozen=True)
class Labels:
    """Labels read off the gradient of the last layer.

    Attributes:
        labels: (V, B) in ascending order; `UNKNOWN` in all of a row where the gradient is zero.
        exact: (V,) bool: whether they follow from the gradient; otherwise they are the likeliest counts, or unknown.
    """

    labels: IntArray
    exact: BoolArray

    @property
    def unknown(self) -> BoolArray:
        """Whose labels are unknown, (V,)."""
        return np.asarray((self.labels == UNKNOWN).any(axis=1))

    def guessed(self, classes: int, rng: np.random.Generator) -> IntArray:
        """Return labels (V, B) that are all classes: those that are unknown drawn from all classes alike."""
        labels, unknown = self.labels.copy(), self.unknown
        labels[unknown] = np.sort(rng.integers(0, classes, labels[unknown].shape), axis=1)
        return labels


def recover_labels(
    signal: Tensor, *, batch_size: int, local_steps: int = 1, unknown_scale: bool = False, noise: float = 0.0
) -> Labels:
    """Read the labels of each victim's batch off the gradient of the last layer's bias.

    That gradient is, for class c, the mean probability of c less the share of c in the batch. With one record it is
    negative for the label alone, so that is exact, whatever its scale and after however many local steps. With more,
    the mean probabilities are not known: classes are taken one by one, each time the one whose gradient is lowest, and
    a share of one record is then added to it; the number of labels is always as asked for. What one record's share is
    depends on the scale; where that is unknown, or has drifted over local steps, the scale is taken whose counts, and
    equal probabilities, explain the gradient best, if any explains it well. A gradient of zero tells nothing, and its
    labels are all `UNKNOWN`.

    Args:
        signal: (V, C), the bias's gradient or `label_signal`.
        batch_size: B, at least 1.
        local_steps: Steps that the gradient is a sum over, at least 1.
        unknown_scale: Whether it was scaled by unknown numbers up to 1, as clipping does.
        noise: Standard deviation of what was added to it; above 0 nothing is exact.

    Returns:
        Labels, and whether they are exact: B = 1, no noise, and one entry alone is negative.

    Raises:
        ValueError: If the shape, B or the steps are out of range.

    Source: Zhao, Mopuri and Bilen 2020, "iDLG", for one record; Wainakh et al. 2021, "User-Level Label Leakage from
    Gradients in Federated Learning", for the counting. The search for a scale is ours: in batches of 8 MNIST images,
    each clipped, it finds 99 to 100% of the labels on an untrained network and 82 to 96% after 50 steps, where counting
    by shares of one eighth finds 73 to 82% and 69 to 72%; after 300 steps either finds about two thirds.
    """
    if signal.ndim != 2 or batch_size < 1 or local_steps < 1:
        raise ValueError(
            f"signal has shape {tuple(signal.shape)}, batch_size is {batch_size}, local_steps {local_steps}; give "
            "(victims, classes), and at least 1 each"
        )
    labels = _counted(signal, local_steps / batch_size, batch_size)
    if batch_size > 1 and (unknown_scale or local_steps > 1):
        labels = _at_best_scale(signal, local_steps, labels)
    labels[~(signal != 0).any(dim=1)] = UNKNOWN
    alone = ((signal < 0).sum(1) == 1) & (batch_size == 1 and noise == 0)
    return Labels(labels.sort(dim=1).values.cpu().numpy(), alone.cpu().numpy())


def _counted(signal: Tensor, share: float, count: int) -> Tensor:
    """Return (V, count) classes, each time that of the lowest signal, which then rises by the share of one record."""
    left, rows, found = signal.clone(), torch.arange(len(signal), device=signal.device), []
    for _ in range(count):
        label = left.argmin(dim=1)
        found.append(label)
        left[rows, label] += share
    return torch.stack(found, dim=1)


def _at_best_scale(signal: Tensor, most: float, otherwise: Tensor) -> Tensor:
    """Return the labels under the scale up to `most` that explains the signal best, or `otherwise` if none does."""
    batch_size, classes = otherwise.shape[1], signal.shape[1]
    square = signal.square().sum(1)
    best, found = _GOOD_FIT * square, otherwise
    for scale in torch.logspace(math.log10(_LEAST_SCALE), 0, _SCALES).tolist():
        labels = _counted(signal, scale * most / batch_size, batch_size)
        explained = 1 / classes - nn.functional.one_hot(labels, classes).to(signal).sum(1) / batch_size
        overlap = (signal * explained).sum(1)
        left = square - overlap.square() / explained.square().sum(1).clamp(min=torch.finfo(signal.dtype).tiny)
        better = (left < best) & (overlap > 0)
        best, found = torch.where(better, left, best), torch.where(better[:, None], labels, found)
    return found


@dataclass(frozen=True)
class LabelSignal:
    """What of a gradient tells of labels.

    Attributes:
        values: (V, C), for each class the mean probability less the share in the batch, up to scale.
        unknown_scale: Whether that scale is unknown.
        unknown_sign: Whether its sign is a guess, so that labels follow from nothing.
        notes: Remarks for the report.
    """

    values: Tensor
    unknown_scale: bool = False
    unknown_sign: bool = False
    notes: tuple[str, ...] = ()


def label_signal(model: nn.Module, gradients: Tensors, facts: RecordSpec, *, noise: float = 0.0) -> LabelSignal:
    """Return what of the shared gradients tells of labels.

    That is the gradient of the last layer's bias. Without a bias it is that of the layer's weight, each class's row as
    a multiple of the layer's input: its sum, if the input is nowhere negative, as behind a ReLU; else its projection on
    the longest row, which is taken to be that of a label. Under noise, and behind a ReLU, both together tell more than
    the bias alone: rows are added up by weights that are the input's mean over records drawn from the public range.

    Args:
        model: Public.
        gradients: name -> (V, *shape of the parameter).
        facts: Of its records.
        noise: Standard deviation of what was added to the gradients.

    Raises:
        NotApplicableError: If the last layer with parameters does not have one output for each class.

    Source: ours, but for the bias and the row sums (Zhao, Mopuri and Bilen 2020). On a ReLU network after 100 steps on
    MNIST, single records clipped at 1 with noise 0.1: 93% of the labels, by the bias alone 17%, which is no more than
    guessing.
    """
    last = layers_in_order(model, probes(facts, model))[-1]
    held = dict(last.layer.named_parameters(recurse=False))
    outputs = len(next(iter(held.values())))
    if outputs != facts.classes or not {"weight", "bias"} & set(held):
        raise NotApplicableError(
            f"needs a last layer with one output for each of {facts.classes} classes, and {last.path!r} of this "
            f"network has {outputs}"
        )
    positive = bool((last.taken >= 0).all())
    seen = {name: gradients[last.name(name)].to(value) for name, value in held.items()}
    if "bias" in seen and not (noise > 0 and positive and isinstance(last.layer, nn.Linear)):
        return LabelSignal(seen["bias"])
    rows = seen["weight"].flatten(2)
    weights = torch.ones_like(rows[0, 0])
    if noise > 0 and isinstance(last.layer, nn.Linear):
        weights = last.taken.flatten(0, -2).mean(0)
    if positive:
        values, how = rows @ weights, "the sums of its weight's rows, whose input is nowhere negative"
    else:
        longest = rows[torch.arange(len(rows), device=rows.device), rows.norm(dim=2).argmax(1)]
        values = -torch.einsum("vcd,vd->vc", rows, longest)
        how = "its weight's rows along the longest, which is taken to be that of a label"
    if "bias" in seen:
        values, how = values + seen["bias"], "bias and weight together, as noise asks for"
    size = values.clamp(min=0).sum(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    without = "" if "bias" in seen else ", which has no bias"
    note = f"Labels were read off the last layer{without}: off {how}."
    return LabelSignal(values * _UNSCALED / size, unknown_scale=True, unknown_sign=not positive, notes=(note,))


def read_labels(view: View, model: nn.Module) -> tuple[Labels, tuple[str, ...]]:
    """Return the labels of every participant's records, and for the report how far they can be relied on.

    Args:
        view: Discloses a transcript.
        model: The view's, in the type to work in.
    """
    transcript = view.transcript
    signal = label_signal(model, transcript.gradients, view.facts, noise=transcript.noise)
    found = recover_labels(
        signal.values,
        batch_size=transcript.batch_size,
        local_steps=transcript.local_steps,
        unknown_scale=transcript.clipped or signal.unknown_scale,
        noise=transcript.noise,
    )
    if signal.unknown_sign:
        found = Labels(found.labels, np.zeros_like(found.exact))
    return found, (*_reliability(found, transcript), *signal.notes)


def _reliability(found: Labels, transcript: Transcript) -> tuple[str, ...]:
    victims, silent = transcript.victims, int(found.unknown.sum())
    unknown = (
        f"{silent} of {victims} participants sent a last layer's gradient of zero, which tells nothing: their labels "
        "are unknown, and drawn at random."
    )
    known = () if silent == victims else (_known(found, transcript),)
    return (*known, unknown) if silent else known


def _known(found: Labels, transcript: Transcript) -> str:
    if transcript.batch_size == 1:
        exact, victims = int(found.exact.sum()), transcript.victims
        rest = "" if exact + int(found.unknown.sum()) == victims else "; the others are the likeliest"
        return f"The label of {exact} of {victims} participants follows exactly from what they sent{rest}."
    drift = ", which drift over local steps," if transcript.local_steps > 1 else ""
    return (
        f"Labels are the likeliest counts in batches of {transcript.batch_size}, not exact: the mean probabilities"
        f"{drift} that they are read against are unknown, and the surer the model the more labels are missed."
    )
