"""Released records as the target: a synthetic table, or the samples of a generator, without any model."""

import hashlib
from dataclasses import replace
from typing import ClassVar, Self

from pydantic import Field, model_validator

from attacks.capabilities import Capability
from attacks.target import Target
from auditor.context import RunContext
from auditor.datasets.sources import load_source
from auditor.plan.plan import Plan, TargetPlan
from auditor.plan.resolve import resolve_generator
from auditor.plan.sections import Source
from auditor.subject import AuditSubject, Description, OnTrust
from auditor.targets.generator_samples import draw_samples, unlabelled
from auditor.targets.labelled_candidates import Sides, load_sides, mixed
from auditor.targets.owner_claims import claim_on_trust, population_on_trust, stated_claim
from defenses.randomness import derive
from defenses.records import Records
from defenses.schemes.none import NoDefense
from reports.records.grounds import SIDES


class ReleasedRecords(TargetPlan):
    """Records that were released in place of real ones, the records that they were made from, and others like them.

    Instead of `synthetic`, `generator` names what makes them, `package.module:factory` (needs --allow-code), and
    `samples` how many are drawn from it; see `auditor.targets.generator_samples`.
    """

    name: ClassVar[str] = "released"

    synthetic: Source | None = None
    generator: str | None = None
    samples: int | None = Field(default=None, ge=10)
    members: Source
    nonmembers: Source
    population: Source | None = None

    @model_validator(mode="after")
    def _one_release(self) -> Self:
        if (self.synthetic is None) == (self.generator is None):
            raise ValueError("give either synthetic, the released records, or generator, package.module:factory")
        if (self.generator is None) != (self.samples is None):
            raise ValueError("generator and samples, how many to draw from it, belong together: give both or neither")
        return self

    def build(self, plan: Plan, context: RunContext) -> AuditSubject:
        """Read released records, or draw them from their generator, and read those that they were made from.

        Its members are the records behind the release; see `TargetPlan.build`.
        """
        synthetic, sides = self._read(plan, context)
        classes = max(sides.classes, synthetic.classes)
        given = mixed(sides, classes=classes)
        target = release(replace(synthetic, classes=classes), given.candidates, population=given.population)
        return AuditSubject(
            target=target,
            split=given.split,
            defense=NoDefense(),
            scheme="not stated",
            claimed=stated_claim(plan),
            proved=None,
            store=context.workspace.store(),
            description=Description(
                called=f"{len(synthetic):,} released records, no model",
                on_trust=(
                    _MADE_OF,
                    OnTrust("That these are the records that are released."),
                    *population_on_trust(target, compared=True),
                    *claim_on_trust(plan),
                ),
                tested_sides=frozenset({SIDES}),
            ),
            control_reason="nothing is known of how the records were made, so no unprotected release could be made "
            "alike",
        )

    def _read(self, plan: Plan, context: RunContext) -> tuple[Records, Sides]:
        """Return the released records, and those that they were made from with others like them."""
        sample = None
        if self.generator is not None:
            sample = resolve_generator(self.generator, allow_code=context.allow_code)
        sides = load_sides(self.members, self.nonmembers, self.population, context)
        if sample is None:
            assert self.synthetic is not None
            return load_source(self.synthetic, context, like=sides.members), sides
        seed = derive(0, "samples of a generator", plan.subject_digest) % 2**31
        synthetic, labelled = draw_samples(sample, like=sides.members, count=self.samples or 0, seed=seed)
        if labelled:
            return synthetic, sides
        outside = None if sides.population is None else unlabelled(sides.population)
        return synthetic, Sides(unlabelled(sides.members), unlabelled(sides.nonmembers), outside)


_MADE_OF = OnTrust(
    "That the release was made from the declared members, all of them, and from no declared non-member.",
    about_sides=True,
)


def release(synthetic: Records, candidates: Records, *, population: Records | None) -> Target:
    """Return released records as a target: they are disclosed, nothing else is."""
    return Target(
        model=None,
        candidates=candidates,
        digest=hashlib.sha256(f"released {synthetic.digest}".encode()).hexdigest(),
        population=population,
        access=frozenset({Capability.RECORDS}),
        synthetic=synthetic,
    )
