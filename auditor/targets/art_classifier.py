"""A classifier of the Adversarial Robustness Toolbox (ART) as the target of attacks, or of a whole audit."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from defenses.ensemble import module_logits
from defenses.private_files import write_private

_LEAST_PROBABILITY = 1e-12
_PROBES = 8

Labelled = tuple[npt.NDArray[Any], npt.NDArray[Any]]
"""Records (n, *shape) and their classes (n,)."""


def from_art(estimator: Any) -> nn.Module:
    """Return a module whose logits are what an ART classifier predicts.

    A `PyTorchClassifier` hands over its own network, which can be differentiated, unless it has defences before or
    after the network or standardises channels one by one. Any other classifier is asked through its `predict` and has
    no gradients: disclose its answers only (`Capability.LOGITS` or less). Probabilities become log-probabilities.

    Args:
        estimator: An ART classifier of at least 2 classes; its `predict` takes (n, *input_shape) float32.

    Returns:
        A module in evaluation mode, from (n, *input_shape) to logits (n, C).

    Raises:
        ValueError: If it is no classifier, or does not predict one finite number for each class.

    Examples:
        >>> target = Target(from_art(classifier), candidates, digest="...")  # doctest: +SKIP

    Source: Nicolae et al. 2018, "Adversarial Robustness Toolbox".
    """
    if not all(hasattr(estimator, name) for name in ("predict", "nb_classes", "input_shape")):
        raise ValueError(
            f"{type(estimator).__name__} is no ART classifier: it needs predict, nb_classes and input_shape"
        )
    has_probabilities = _predicts_probabilities(estimator)
    scale = _scale_of_network(estimator)
    if scale is None:
        return _Queried(estimator, has_probabilities=has_probabilities).eval()
    network: nn.Module = estimator.model
    before = [] if scale == (0.0, 1.0) else [_Standardise(*scale)]
    after = [_Log()] if has_probabilities else []
    return nn.Sequential(*before, network, *after).eval() if before or after else network.eval()


def record_scores(
    model: nn.Module, path: Path, *, members: Labelled, nonmembers: Labelled, population: Labelled | None = None
) -> Path:
    """Write what a model answers to a file that a plan audits as `[scores]`; the model itself is then not needed.

    This is the way to a whole report for a model that exists in memory only. Attacks that need weights, other queries
    or shadow models are listed in the report as not applicable.

    Args:
        model: From records to logits (n, C), such as `from_art(estimator)`.
        path: A `.npz` file to write, with mode 0600: it says who was a member.
        members: Records of the training set with their classes.
        nonmembers: Records that the model was not trained on.
        population: Further records outside training, for attacks that compare with a population.

    Returns:
        The path.

    Raises:
        ValueError: If the file's name does not end in ".npz", or a side is empty or has not one class a record.

    Examples:
        >>> record_scores(from_art(classifier), Path("scores.npz"), members=a, nonmembers=b)  # doctest: +SKIP
    """
    if path.suffix != ".npz":
        raise ValueError(f"path is {path}; give a file whose name ends in .npz")
    for x, y in (members, nonmembers, *([] if population is None else [population])):
        if not len(x) or np.shape(y) != (len(x),):
            raise ValueError(f"{len(x)} records with classes of shape {np.shape(y)}; give one class for each record")
    arrays = {
        "logits": np.concatenate([_answers(model, x) for x, _ in (members, nonmembers)]),
        "label": np.concatenate([members[1], nonmembers[1]]),
        "member": np.arange(len(members[0]) + len(nonmembers[0])) < len(members[0]),
    }
    if population is not None:
        arrays |= {"population_logits": _answers(model, population[0]), "population_label": np.asarray(population[1])}
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    write_private(path, content.getvalue())
    return path


class _Queried(nn.Module):
    """Asks a classifier that is not a network of ours.

    Args:
        estimator: The ART classifier.
        has_probabilities: Whether it predicts probabilities.
    """

    def __init__(self, estimator: Any, *, has_probabilities: bool) -> None:
        super().__init__()
        self._estimator, self._has_probabilities = estimator, has_probabilities
        self._like = nn.Parameter(torch.zeros(1), requires_grad=False)  # says on which device, in which precision

    def forward(self, x: Tensor) -> Tensor:
        predicted = self._estimator.predict(x.detach().cpu().numpy().astype(np.float32))
        answers = torch.from_numpy(np.asarray(predicted, dtype=np.float64))
        return (_as_logits(answers) if self._has_probabilities else answers).to(x)


class _Standardise(nn.Module):
    """Subtracts a mean and divides by a standard deviation, one for all features, as ART does before the network."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class _Log(nn.Module):
    """Turns probabilities into log-probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        return _as_logits(x)


def _as_logits(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_min(_LEAST_PROBABILITY).log()


def _scale_of_network(estimator: Any) -> tuple[float, float] | None:
    """Return mean and standard deviation that a PyTorch classifier applies before its network.

    None for other classifiers, and where anything else stands before or after the network.
    """
    from art.estimators.classification import PyTorchClassifier
    from art.preprocessing.standardisation_mean_std.numpy import StandardisationMeanStd
    from art.preprocessing.standardisation_mean_std.pytorch import StandardisationMeanStdPyTorch

    if not isinstance(estimator, PyTorchClassifier) or estimator.postprocessing_defences:
        return None
    mean, std = 0.0, 1.0
    for operation in estimator.preprocessing_operations:
        if not isinstance(operation, StandardisationMeanStd | StandardisationMeanStdPyTorch):
            return None
        if np.size(operation.mean) * np.size(operation.std) != 1:
            return None
        first, divisor = float(np.ravel(operation.mean)[0]), float(np.ravel(operation.std)[0])
        mean, std = mean + std * first, std * divisor  # ((x - a) / b - c) / d = (x - a - b c) / (b d)
    return mean, std


def _predicts_probabilities(estimator: Any) -> bool:
    """Say whether predictions are probabilities; records drawn from the public range are asked about."""
    low, high = (0.0, 1.0) if getattr(estimator, "clip_values", None) is None else map(np.min, estimator.clip_values)
    probes = np.random.default_rng(0).uniform(low, high, (_PROBES, *estimator.input_shape)).astype(np.float32)
    predicted = np.asarray(estimator.predict(probes), dtype=np.float64)
    wanted = (_PROBES, max(2, estimator.nb_classes))
    if predicted.shape != wanted or not np.isfinite(predicted).all():
        raise ValueError(
            f"{type(estimator).__name__} predicts shape {predicted.shape} for {_PROBES} records, or values that are "
            f"not finite; it must predict {wanted}, one finite number for each class"
        )
    return bool((predicted >= 0).all() and np.allclose(predicted.sum(axis=1), 1, atol=1e-4))


def _answers(model: nn.Module, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return module_logits(model, np.asarray(x, dtype=np.float32))
