"""From a transcript to a search by gradient matching, and from what it found to a claim."""

import dataclasses
import math

import numpy as np
import torch
from torch import nn

from attacks.gradient_leakage.gradient_matching import GradientMatching, Leaked
from attacks.protocol import Reconstructions
from attacks.view import View
from defenses.errors import NotApplicableError
from defenses.progress import OnProgress
from defenses.records import IntArray


def check_settings(*, evaluations: int, restarts: int, tolerance: float, smoothness: float) -> None:
    """Raise ValueError if the settings that all these attacks have are out of range."""
    if evaluations < 1 or restarts < 1:
        raise ValueError(f"evaluations is {evaluations}, restarts {restarts}; both must be at least 1")
    if not tolerance >= 0 or not 0 <= smoothness < math.inf:
        raise ValueError(f"tolerance is {tolerance}, smoothness {smoothness}; both must be at least 0, and finite")


def public_model(view: View, *, double: bool) -> nn.Module:
    """Return the view's model in the type to search in."""
    return view.module().double() if double else view.module().float()


def match(
    view: View,
    model: nn.Module,
    matching: GradientMatching,
    *,
    labels: IntArray | None,
    rng: np.random.Generator,
    on_progress: OnProgress,
) -> Leaked:
    """Match what every participant of a transcript sent, in the way in which messages are known to be made.

    Args:
        view: Discloses the transcript.
        model: In the type to search in.
        matching: How to search; what the transcript says of clipping, cutting and local steps is added to it.
        labels: (V, B), or None where they are searched too.
        rng: Draws first guesses.
        on_progress: Called while it works.

    Raises:
        NotApplicableError: If every participant sent a gradient of zero.
    """
    transcript, facts = view.transcript, view.facts
    if not any(bool(value.any()) for value in transcript.gradients.values()):
        raise NotApplicableError(
            f"needs messages to match, and the gradients of all {transcript.victims} participants are zero, which any "
            "record may leave: take them from weights that still learn, or cut away less"
        )
    adapted = dataclasses.replace(
        matching,
        unknown_scale=transcript.clipped,
        masked=transcript.sparsified,
        smoothness=matching.smoothness if len(facts.shape) == 3 else 0.0,
        local_steps=transcript.local_steps,
        learning_rate=transcript.learning_rate,
    )
    return adapted.run(
        model,
        transcript.gradients,
        shape=facts.shape,
        classes=facts.classes,
        generator=torch.Generator().manual_seed(int(rng.integers(2**63))),
        labels=labels,
        batch_size=transcript.batch_size,
        value_range=facts.value_range,
        on_progress=on_progress,
    )


def claimed(view: View, leaked: Leaked, *, tolerance: float, notes: tuple[str, ...]) -> Reconstructions:
    """Return what was found as a claim, participant by participant, inside the public range, with remarks.

    Args:
        view: Where it was found.
        leaked: What was found.
        tolerance: Of the search.
        notes: Further remarks.
    """
    transcript, (low, high) = view.transcript, view.facts.value_range
    x = np.clip(leaked.x, low, high).astype(np.float32).reshape(-1, *view.facts.shape)
    silent = int(leaked.silent.sum())
    remarks = [
        f"{int(leaked.converged.sum())} of {transcript.victims} searches left less than {tolerance:g} of the distance "
        f"at their first guess, after {int(np.median(leaked.evaluations))} evaluations in the median."
    ]
    if silent:
        remarks.append(
            f"{silent} of {transcript.victims} participants sent a gradient of zero, which leaves nothing to match: "
            "their searches did not converge, and the middle of the range stands for their records."
        )
    if transcript.noise > 0:
        remarks.append(
            f"What was sent carries noise of standard deviation {transcript.noise:g}, which no guess explains: "
            "searches fit it as far as they can."
        )
    if transcript.clipped and transcript.batch_size > 1 and transcript.local_steps > 1:
        remarks.append(
            "Records were clipped at every local step; one scale for the whole message stands in for theirs."
        )
    return Reconstructions(x, (*remarks, *notes))
