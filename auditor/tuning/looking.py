"""Looks at settings by whole audits: train the models of a setting, attack them, and take their figures down."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from attacks.capabilities import Capability
from attacks.protocol import Attack
from auditor.audit import Audit, accuracy, run_audit
from auditor.context import Replicate, RunContext
from auditor.evidence.run_attack import Evidence
from auditor.plan.plan import Plan
from auditor.plan.sections import Control
from auditor.report_files import clear, write_audit
from auditor.targets.dcgan import SAMPLES
from auditor.targets.gradient_updates import GRADIENTS
from auditor.targets.trained_here import trained_subject
from auditor.tuning.judging import STEPS, Figures, LimitProbe, SettingFacts, judge_setting, mean_over_runs
from auditor.tuning.power import power_check
from auditor.tuning.price import event_of_generator
from auditor.verdicts.findings import FAILED, applies
from defenses.errors import TrainingError
from defenses.progress import Progress
from reports.measures import EPSILON
from reports.records.report import AttackStatus, Estimate, Finding, GuaranteeRecord, Status
from reports.records.tuning import Look, Sight, Stage

GENERATORS = ("participant_gan",)


class UnderpoweredError(Exception):
    """No probe of some limit could have seen the leak, or the accuracy asked for is beyond reach; the walk is off."""


def limit_probes(plan: Plan, attacks: Sequence[Attack], *, epsilon: float | None) -> list[LimitProbe]:
    """Return every limit with every attack that it holds for, and the one on epsilon."""
    found = [
        LimitProbe(
            attack.name,
            attack.title,
            limit.measure,
            limit.maximum,
            about=_about(attack),
            named=limit.attack is not None,
            faint=attack.name in GENERATORS or (plan.generator is not None and _about(attack) == SAMPLES),
        )
        for limit in plan.limits
        for attack in attacks
        if applies(limit, attack)
    ]
    if epsilon is not None:
        found.append(LimitProbe(STEPS, "Gradient canaries", EPSILON, epsilon, about=STEPS))
    return found


def _about(attack: Attack) -> str:
    """Return words for what an attack is run on, as far as that tells which attacks can stand in for each other."""
    for capability, about in ((Capability.SYNTHETIC, SAMPLES), (Capability.GRADIENTS, GRADIENTS)):
        if capability in attack.requires.access:
            return about
    return f"the model, {attack.claims.__name__}"


@dataclass
class Evaluator:
    """Looks at settings, and remembers what the first look saw on the control.

    Attributes:
        plans: The audit plan of each setting.
        asked: The limits.
        context: Where to work and with what.
        folder: Where the reports go.
        replicates: Models at each setting.
        looks_at_most: How many looks there may be.
        minimum_accuracy: What is asked of the final model, or None.
        on_look: Told after each look.
        sights: What each probe saw on the control.
        control: The figure there, for the limits whose probes see.
        unprotected: Accuracy of the control.
        events: What each training did, for the price of all of them.
        first: The first audit, for what its control showed.
        final: The one model of the final look, which is the one to release.
        looks: How many looks there were.
        began: When, on the clock.
    """

    plans: dict[float, Plan]
    asked: list[LimitProbe]
    context: RunContext
    folder: Path
    replicates: int
    looks_at_most: int
    minimum_accuracy: float | None = None
    on_look: Callable[[Look, float], None] = lambda look, left: None
    sights: list[Sight] = field(default_factory=list)
    control: dict[LimitProbe, Estimate] = field(default_factory=dict)
    unprotected: Estimate | None = None
    events: list[Any] = field(default_factory=list)
    first: Audit | None = None
    final: nn.Module | None = None
    looks: int = 0
    began: float = field(default_factory=time.monotonic)

    def look(self, value: float, stage: Stage, level: float) -> Look:
        """Train the models of one setting afresh, attack them and judge them.

        Raises:
            BlindError: After the first look, if the control shows that the rest would be in vain.
        """
        clock = time.perf_counter()
        try:
            audits = [self._audit(value, stage, level, index) for index in range(self.replicates)]
        except TrainingError as error:
            return self._told(_untrained(value, stage, str(error), time.perf_counter() - clock))
        reports = [self._write(audit, value, stage, index) for index, audit in enumerate(audits)]
        fresh = self.first is None
        if fresh:
            self.first = replace(audits[0], evidence=())
        facts = self._facts(audits)
        if fresh and facts.failed is None:
            self._remember(audits[0], value, level)
        generator = event_of_generator(self.plans[value])
        self.events += [audit.event for audit in audits]
        self.events += [] if generator is None else [generator] * len(audits)
        figures = {one: self._figures(one, audits) for one in self.asked}
        found = judge_setting(value, stage, self.asked, figures, self.control, facts, level=level)
        epsilons, subjects = audits[0].report.epsilons, [audit.report.subject for audit in audits]
        proved = _weakest(audits)
        found = found.model_copy(
            update={
                "epsilon": None if proved is None else proved.epsilon,
                "delta": None if proved is None else proved.delta,
                "epsilon_reason": None if proved is None else proved.reason,
                "shown": max(
                    (one.lower for audit in audits if (one := audit.report.epsilons.shown) is not None), default=None
                ),
                "implied": None if epsilons.implied is None else epsilons.implied.lower,
                "accuracy_train": _over([subject.accuracy_train for subject in subjects]),
                "accuracy_holdout": _over([subject.accuracy_holdout for subject in subjects]),
                "models": self.replicates,
                "seconds": time.perf_counter() - clock,
                "reports": reports,
            }
        )
        if stage is Stage.FINAL and self.replicates == 1:
            self.final = audits[0].model
        return self._told(found)

    def _told(self, found: Look) -> Look:
        self.looks += 1
        each = (time.monotonic() - self.began) / self.looks
        self.on_look(found, 0.0 if found.stage is Stage.FINAL else each * (self.looks_at_most - self.looks))
        return found

    def _audit(self, value: float, stage: Stage, level: float, index: int) -> Audit:
        plan = self.plans[value]
        changes: dict[str, Any] = {"confidence": (1 + level) / 2}  # claims share the error of one upper end
        if self.first is not None or index:
            changes["control"] = Control(enabled=False)
        if index:  # steps are alike in all models of a setting, so they are watched once
            changes |= {"white_box": None, "prior_aware": None}
        many = "" if self.replicates == 1 else f", model {index + 1} of {self.replicates}"
        where = f"{stage}, {self.plans[value].title.rpartition(': ')[2]}{many}"

        def within(progress: Progress) -> None:
            self.context.on_progress(replace(progress, stage=f"{where}: {progress.stage}"))

        draw = Replicate(f"{stage} {value!r}", self.replicates, index)
        context = replace(self.context, draw=draw, on_progress=within)
        # One run alone is judged at the whole error; the worst of several shares it.
        apart = level if self.replicates == 1 else 1 - (1 - level) / self.replicates
        return run_audit(plan.model_copy(update=changes), context, level=apart)

    def _write(self, audit: Audit, value: float, stage: Stage, index: int) -> str:
        name = f"{stage}-{value:.10g}" + ("" if self.replicates == 1 else f"-{index + 1}")
        clear(self.folder / name)  # an earlier run's report is not this one's
        write_audit(audit, self.folder / name)
        return f"{name}/report.html"

    def _remember(self, audit: Audit, value: float, level: float) -> None:
        """Take down what the control shows, and stop if it shows that nothing could come of the walk."""
        self.unprotected = audit.unprotected
        entries = {entry.attack.name: entry for entry in audit.control}
        for one in self.asked:
            if one.attack == STEPS:
                continue
            entry = entries.get(one.attack)
            found = None if entry is None else entry.measures(level=level, wanted=[one.measure])[one.measure]
            self.sights.append(power_check(one, entry, found, level=level, models=self.replicates))
            if self.sights[-1].sees and found is not None:
                self.control[one] = found
        for one in self.asked:
            if one.attack != STEPS and not any(other.stands_in_for(one) for other in self.control):
                raise UnderpoweredError("the leak could not have been seen")
        floor = self.minimum_accuracy
        if floor is None:
            return
        self.unprotected = reached = self._unprotected(value)
        if reached is not None and reached.high is not None and reached.high < floor:
            raise UnderpoweredError(
                f"an accuracy of {floor:.4g} is asked for, and even without protection the model reaches "
                f"{reached.value:.4g} ({reached.low:.4g} to {reached.high:.4g})"
            )

    def _unprotected(self, value: float) -> Estimate | None:
        """Return the best accuracy without protection: of the control, which is made to leak, and of the plan's recipe.

        The walk's rate may be too high for a training without clipping; the control's is not.
        """
        plan = self.plans[value].model_copy(
            update={"scheme": None, "control": Control(enabled=False), "attacks": (), "limits": (), "gradients": None}
            | {"generator": None, "white_box": None, "prior_aware": None}
        )
        try:
            subject = trained_subject(plan, replace(self.context, draw=Replicate("without protection")))
        except TrainingError:
            return self.unprotected
        own = accuracy(subject.questions[0], self.context, plan.confidence)
        both = [one for one in (own, self.unprotected) if one is not None]
        return max(both, key=lambda one: one.value or 0.0, default=None)

    def _figures(self, one: LimitProbe, audits: Sequence[Audit]) -> Figures:
        if one.attack == STEPS:
            steps = audits[0].steps
            assert steps is not None
            estimate = Estimate(
                value=max(steps.likely, steps.gaussian.lower),
                low=steps.gaussian.lower,
                high=max(steps.most, steps.likely),
                level=2 * steps.gaussian.confidence - 1,
                method=steps.gaussian.method,
                n=steps.trials,
                unit="trial",
            )
            return Figures((estimate,))
        entries = [_entry(audit, one.attack) for audit in audits]
        left_out = next((entry.reason for entry in entries if entry.status is not AttackStatus.RAN), None)
        if left_out is not None:
            return Figures((), reason=left_out)
        results = [next(result for result in audit.report.attacks if result.name == one.attack) for audit in audits]
        doubts = [None if entry.joined is None else entry.joined.doubt(one.measure, one.limit) for entry in entries]
        doubt = next((doubt for doubt in doubts if doubt is not None), None)
        return Figures(tuple(result.measures[one.measure] for result in results), doubt=doubt)

    def _facts(self, audits: Sequence[Audit]) -> SettingFacts:
        findings = [finding for audit in audits for finding in audit.report.findings]
        proved = _weakest(audits)
        assert self.first is not None
        could = {entry.attack.name for entry in self.first.control}
        contradicted = next((one.sentence for one in findings if one.status is Status.VIOLATED), None)
        failed = next((one.sentence for one in findings if _broke(one, could)), None)
        return SettingFacts(None if proved is None else proved.epsilon, contradicted, failed)


def _broke(finding: Finding, could: set[str]) -> bool:
    """Say whether an attack failed, or never could be run; one that the control allowed has only nothing to attack."""
    return finding.status is Status.ERROR and (finding.code == FAILED or finding.attack not in could)


def _weakest(audits: Sequence[Audit]) -> GuaranteeRecord | None:
    """Return what is proved of every model: nothing where it is not of one, else the largest epsilon."""
    proved = [audit.report.epsilons.proved for audit in audits]
    known = [one for one in proved if one is not None and one.epsilon is not None]
    if len(known) < len(proved):
        return next(one for one in proved if one is None or one.epsilon is None)
    return max(known, key=lambda one: one.epsilon or 0.0)


def _untrained(value: float, stage: Stage, reason: str, seconds: float) -> Look:
    sentence = f"It could not be trained: {reason}."
    return Look(stage=stage, value=value, verdict=Status.ERROR, sentence=sentence, probes=[], seconds=seconds)


def _entry(audit: Audit, attack: str) -> Evidence:
    return next(entry for entry in audit.evidence if entry.attack.name == attack)


def _over(each: Sequence[Estimate | None]) -> Estimate | None:
    there = [one for one in each if one is not None]
    if len(there) < 2:
        return there[0] if there else None
    found = mean_over_runs(there, level=there[0].level or 0.95)
    if found.low is None or found.high is None:
        return found
    return found.model_copy(update={"low": max(found.low, 0.0), "high": min(found.high, 1.0)})
