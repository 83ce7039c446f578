"""How well our own attacks rank members of a model that memorised random labels: strength is no contract."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from attacks.protocol import MembershipScores
from attacks.registry import registered_attacks
from attacks.target import Target
from attacks.view import expose
from defenses.records import BoolArray

ON_MODELS = [
    "augmentation_agreement",
    "boundary_distance",
    "gradient_norm",
    "lira",
    "loss_threshold",
    "modified_entropy",
    "modified_entropy_by_class",
    "population",
    "quantile",
    "reference",
    "rmia",
    "shadow_classifier",
]
ON_RELEASED_RECORDS = ["linkability", "nearest_synthetic"]


def auc_of(name: str, target: Target, included: np.ndarray) -> float:
    attack = registered_attacks()[name](**registered_attacks()[name].example)
    claim = attack.run(expose(target, attack.requires), rng=np.random.default_rng(1))
    assert isinstance(claim, MembershipScores)
    return float(roc_auc_score(included, claim.scores))


@pytest.mark.parametrize("name", ON_MODELS)
def test_members_of_a_model_that_memorised_them_are_found(name: str, leaky: tuple[Target, BoolArray]) -> None:
    target, included = leaky
    assert auc_of(name, target, included) > 0.8


@pytest.mark.parametrize("name", ON_RELEASED_RECORDS)
def test_records_that_were_released_as_they_are_are_found(name: str, disclosing: list[Target]) -> None:
    target = disclosing[0]
    assert auc_of(name, target, np.arange(len(target.candidates)) % 2 == 0) > 0.8
