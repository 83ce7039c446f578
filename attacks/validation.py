"""What does not fit together is refused here, once for all attacks: parts of a target, its answers, its slopes."""

import contextlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call

from attacks.capabilities import Capability
from attacks.record_spec import RecordSpec
from attacks.target import Target
from attacks.transcript import Transcript
from defenses.errors import DataError, NotApplicableError
from defenses.records import Records

_PROBED = 4


def check_parts(target: Target, seen: frozenset[Capability], *, population: bool) -> None:
    """Refuse a target whose disclosed parts are missing or do not belong together.

    Args:
        target: What is attacked; it offers all that is disclosed.
        seen: What is disclosed of it, implications included.
        population: Whether population records are.

    Raises:
        DataError: If there is no candidate, or records or messages have other shapes or classes than the target.
        NotApplicableError: If nothing can be learned: no population record, no released one, nobody who sent anything,
            fewer than two classes, or a model without parameters.
    """
    candidates = target.candidates
    if not len(candidates):
        raise DataError("there are no candidates: give at least 1 record to ask about")
    if {Capability.LABELS, Capability.GRADIENTS} & seen:
        if isinstance(target.model, nn.Module) and next(target.model.parameters(), None) is None:
            raise NotApplicableError("needs a model with parameters, and this one has none that training could set")
        if candidates.classes < 2:
            raise NotApplicableError(f"needs a model of at least 2 classes, and this one has {candidates.classes}")
    if population and target.population is not None:
        if not len(target.population):
            raise NotApplicableError("the population is empty: there is no population record to learn from or compare")
        _check_alike(target.population, candidates, "population")
    if Capability.SYNTHETIC in seen and target.synthetic is not None:
        if not len(target.synthetic):
            raise NotApplicableError("needs records released in place of the real ones, and none was released")
        _check_alike(target.synthetic, candidates, "released")
    if Capability.GRADIENTS in seen and target.transcript is not None:
        if not isinstance(target.model, nn.Module):
            raise NotApplicableError("needs the model that the messages of participants are about")
        _check_messages(target.transcript, target.model)


def _check_alike(records: Records, candidates: Records, what: str) -> None:
    if records.shape != candidates.shape or records.y.max() >= candidates.classes:
        raise DataError(
            f"{what} records have shape {records.shape} and labels up to {records.y.max()}, the candidates "
            f"{candidates.shape} and {candidates.classes} classes: encode them alike"
        )


def _check_messages(transcript: Transcript, model: nn.Module) -> None:
    weights, sent = dict(model.named_parameters()), transcript.gradients
    missing = [name for name in weights if name not in sent]
    if missing:
        raise DataError(f"nobody sent a gradient of {missing[0]!r}: the messages must be about this model's parameters")
    victims = transcript.victims
    if not victims:
        raise NotApplicableError("needs messages of participants, and nobody sent one")
    for name, weight in weights.items():
        if sent[name].shape != (victims, *weight.shape):
            raise DataError(
                f"gradients of {name!r} have shape {tuple(sent[name].shape)}: give {(victims, *weight.shape)}, one for "
                "each participant"
            )
    broken = torch.stack([(~sent[name].isfinite()).flatten(1).any(dim=1) for name in weights]).any(dim=0)
    if broken.any():
        raise NotApplicableError(
            f"{int(broken.sum())} of {victims} participants sent numbers that are not finite: leave them out"
        )


@contextlib.contextmanager
def understood(shape: tuple[int, ...]) -> Iterator[None]:
    """Say of a model that breaks on records that it does not take them.

    Args:
        shape: Of one record.

    Raises:
        DataError: In place of what the model raised.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"the target does not take records of shape {shape}: give such as it was made for ({reason})"
        ) from error


def check_answers(logits: npt.NDArray[np.float64], *, count: int, classes: int) -> None:
    """Refuse answers that are not one finite logit for each record and class.

    Args:
        logits: What the target said.
        count: Records that it was asked about.
        classes: Classes C.

    Raises:
        DataError: If the shape is not (count, C).
        NotApplicableError: If an answer is not finite.
    """
    if logits.shape != (count, classes):
        raise DataError(
            f"the target gave answers of shape {logits.shape} to {count} records of {classes} classes: it must give "
            f"{(count, classes)}, one logit for each class"
        )
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise NotApplicableError(
            f"the target answered {broken} of {count} records with values that are not finite: audit weights from "
            "before it diverged"
        )


def check_slopes(model: nn.Module, facts: RecordSpec) -> None:
    """Refuse a model whose answers have no slope at all, neither in its records nor in its weights.

    Args:
        model: A copy of the target.
        facts: Of its records; it is asked about some that are uniform over the public range.

    Raises:
        DataError: If the model does not take such records, or gives other answers than a logit for each class.
        NotApplicableError: If its answers are not finite, cannot be differentiated, or every slope is zero.
    """
    weights = {
        name: value.detach().clone().requires_grad_()
        for name, value in model.named_parameters()
        if value.is_floating_point()
    }
    generator, (low, high) = torch.Generator().manual_seed(0), facts.value_range
    like = next(model.parameters())
    x = (low + (high - low) * torch.rand(_PROBED, *facts.shape, generator=generator)).to(like).requires_grad_()
    with torch.enable_grad(), understood(facts.shape):
        logits = functional_call(model, weights, (x,))
    check_answers(logits.detach().double().cpu().numpy(), count=_PROBED, classes=facts.classes)
    # Any mixture of the answers will do, but for those that all answers have alike, as their sum may be.
    mixed = (logits * torch.randn(logits.shape, generator=generator).to(logits)).sum()
    slopes: tuple[torch.Tensor | None, ...] = ()
    if mixed.requires_grad:
        slopes = torch.autograd.grad(mixed, [x, *weights.values()], allow_unused=True)
    if not any(slope is not None and bool((slope != 0).any()) for slope in slopes):
        raise NotApplicableError(
            "needs a model that can be differentiated, and the answers of this one have no slope in its weights or in "
            "records: give the model without what rounds or detaches its outputs, or use attacks that only ask"
        )
