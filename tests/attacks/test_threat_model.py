"""A view discloses what its threat model says, and never who was in."""

import dataclasses

import numpy as np
import pytest

from attacks.capabilities import Capability, implied_capabilities
from attacks.target import Target
from attacks.threat_model import ThreatModel
from attacks.view import View, expose
from defenses.errors import NotApplicableError, NotDisclosedError
from defenses.records import BoolArray


def test_capabilities_imply_weaker_ones() -> None:
    beside_the_model = {Capability.RECORDS, Capability.GRADIENTS, Capability.SYNTHETIC}
    assert implied_capabilities({Capability.WEIGHTS}) == frozenset(Capability) - beside_the_model
    assert implied_capabilities({Capability.PROBABILITIES}) == {Capability.PROBABILITIES, Capability.LABELS}


def test_a_view_refuses_what_is_not_disclosed(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    view = expose(target, ThreatModel(frozenset({Capability.LABELS})))
    x = target.candidates.x[:5]
    assert view.labels(x).shape == (5,)
    for refused in (view.probabilities, view.logits):
        with pytest.raises(NotDisclosedError, match="does not disclose"):
            refused(x)
    with pytest.raises(NotDisclosedError, match="population"):
        _ = view.population
    with pytest.raises(NotDisclosedError, match="recipe"):
        _ = view.shadows


def test_labels_and_probabilities_agree_with_the_logits(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    view = expose(target, ThreatModel(frozenset({Capability.LOGITS})))
    x = target.candidates.x
    logits, probabilities = view.logits(x), view.probabilities(x)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert np.allclose(np.log(probabilities) - logits, (np.log(probabilities) - logits)[:, :1])
    assert np.array_equal(view.labels(x), logits.argmax(axis=1))


def test_no_field_of_a_view_is_the_truth(leaky: tuple[Target, BoolArray]) -> None:
    target, included = leaky
    view = expose(target, ThreatModel(frozenset({Capability.WEIGHTS}), population=True, recipe=True))
    for field in dataclasses.fields(View):
        value = getattr(view, field.name)
        assert not (isinstance(value, np.ndarray) and value.shape == included.shape and value.dtype == bool)
    assert "included" not in {field.name for field in dataclasses.fields(View)}


def test_what_a_target_cannot_offer_is_not_applicable(leaky: tuple[Target, BoolArray]) -> None:
    target, _ = leaky
    with pytest.raises(NotApplicableError, match="population records outside training and the training recipe"):
        expose(
            dataclasses.replace(target, population=None, shadows=None),
            ThreatModel(frozenset({Capability.LOGITS}), population=True, recipe=True),
        )
