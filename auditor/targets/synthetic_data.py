"""Released records as the target: a synthetic table, or the samples of a generator, without any model."""

import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from attacks.threat_model import Capability, Target
from auditor.context import Setting
from auditor.datasets import check_records
from auditor.datasets.sources import joined, load_source, refuse_overlap
from auditor.plan.plan import Plan
from auditor.plan.resolve import resolve_generator
from auditor.plan.sections import Released
from auditor.subject import Subject
from auditor.targets.generator_samples import draw_samples, unlabelled
from auditor.targets.owner_claims import stated_claim
from defenses.errors import NotApplicableError
from defenses.randomness import derive, stream
from defenses.records import Inclusion, Records, Split
from defenses.schemes.none import NoDefense


class NoModel(nn.Module):
    """Stands where nothing was trained that could be asked."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Refuse: there is nothing to ask."""
        raise NotApplicableError("needs a model, and only released records are at hand")


def released_subject(plan: Plan, entry: Released, setting: Setting) -> Subject:
    """Read released records, or draw them from their generator, and read those that they were made from.

    Args:
        plan: What to audit.
        entry: Where the records are.
        setting: Where and with what.

    Returns:
        The subject; its members are the records behind the release.

    Raises:
        AuditError: If data or plan do not fit.
    """
    sample = None
    if entry.generator is not None:
        sample = resolve_generator(entry.generator, allow_code=setting.allow_code)
    members = load_source(entry.members, setting)
    nonmembers = load_source(entry.nonmembers, setting, like=members)
    outside = None if entry.population is None else load_source(entry.population, setting, like=members)
    if sample is not None:
        seed = derive(0, "samples of a generator", plan.subject_digest) % 2**31
        synthetic, labelled = draw_samples(sample, like=members, count=entry.samples or 0, seed=seed)
        if not labelled:
            members, nonmembers = unlabelled(members), unlabelled(nonmembers)
            outside = None if outside is None else unlabelled(outside)
    else:
        assert entry.synthetic is not None
        synthetic = load_source(entry.synthetic, setting, like=members)
    classes = max(part.classes for part in (members, nonmembers, synthetic, outside) if part is not None)
    check_records(members, nonmembers, classes=classes, shape=members.shape)
    both = joined(members, nonmembers, classes)
    if outside is not None:
        refuse_overlap(outside, both)
        outside = replace(outside, classes=classes)
    order = stream(0, "order", both.digest).permutation(len(both))
    candidates, included = both.take(order), order < len(members)
    return Subject(
        target=release(replace(synthetic, classes=classes), candidates, population=outside),
        split=Split(
            canary=np.arange(len(candidates)),
            included=included,
            population=len(candidates) + np.arange(0 if outside is None else len(outside)),
            inclusion=Inclusion.FIXED,
            probability=len(members) / len(both),
        ),
        defense=NoDefense(),
        scheme="not stated",
        claimed=stated_claim(plan),
        proved=None,
        store=setting.workplace.store(),
        control_reason="nothing is known of how the records were made, so no unprotected release could be made alike",
    )


def release(synthetic: Records, candidates: Records, *, population: Records | None) -> Target:
    """Return released records as a target: they are disclosed, nothing else is."""
    return Target(
        model=NoModel().eval(),
        candidates=candidates,
        digest=hashlib.sha256(f"released {synthetic.digest}".encode()).hexdigest(),
        population=population,
        access=frozenset({Capability.RECORDS}),
        synthetic=synthetic,
    )
