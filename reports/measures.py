"""What each measure of an attack means: its plain name, its range, and what guessing would give."""

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass

EPSILON = "epsilon"


class Scale(enum.Enum):
    """How a measure's numbers are written."""

    SHARE = "as a percentage"
    SCORE = "with three decimals"
    NATS = "as an epsilon"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure, explained.

    Attributes:
        name: As it stands in the record, say "tpr_at_fpr_0.01".
        title: The same in plain English.
        meaning: One sentence on how to read the number.
        scale: How its numbers are written.
        baseline: What an attack that knows nothing gets; None where that is not known.
        largest: The largest value it can take; None where it has no end.
        known: Whether this program knows the measure; third-party attacks may bring their own.
        false_alarms: The false positive rate at which it is taken, if it is.
    """

    name: str
    title: str
    meaning: str
    scale: Scale
    baseline: float | None
    largest: float | None
    known: bool = True
    false_alarms: float | None = None


def _share(text: str) -> str:
    return f"{100 * float(text):.6g}%"


def _tpr(name: str, rate: str) -> Measure:
    return Measure(
        name=name,
        title=f"Members found at {_share(rate)} false alarms",
        meaning=f"Share of the training records that the attack names while it wrongly names {_share(rate)} of the "
        f"others; guessing finds {_share(rate)}.",
        scale=Scale.SHARE,
        baseline=float(rate),
        largest=1.0,
        false_alarms=float(rate),
    )


def _predictive_value(name: str, prior: str) -> Measure:
    return Measure(
        name=name,
        title=f"Right when it says “member”, if {_share(prior)} of the candidates are",
        meaning=f"Share of the named records that are members where {_share(prior)} of all candidates are; guessing "
        f"is right {_share(prior)} of the time.",
        scale=Scale.SHARE,
        baseline=float(prior),
        largest=1.0,
    )


_RATE = r"(\d*\.?\d+(?:e-?\d+)?)"
_PATTERNS: tuple[tuple[re.Pattern[str], Callable[[str, str], Measure]], ...] = (
    (re.compile(rf"tpr_at_fpr_{_RATE}"), _tpr),
    (re.compile(rf"(?:ppv|(?:positive_)?predictive_value)(?:_at)?(?:_prior)?_{_RATE}"), _predictive_value),
)

_NAMED = {
    measure.name: measure
    for measure in (
        Measure(
            name="auc",
            title="Members ranked above non-members (AUC)",
            meaning="Chance that a random member scores above a random non-member; guessing gives 0.5.",
            scale=Scale.SCORE,
            baseline=0.5,
            largest=1.0,
        ),
        Measure(
            name="advantage",
            title="Membership advantage",
            meaning="Share of members found minus share of false alarms at the attack's best threshold; guessing "
            "gives 0.",
            scale=Scale.SCORE,
            baseline=0.0,
            largest=1.0,
        ),
        Measure(
            name="balanced_accuracy",
            title="Right guesses among equally many members and non-members",
            meaning="Share of right answers where half the candidates are members; guessing gives 50%.",
            scale=Scale.SHARE,
            baseline=0.5,
            largest=1.0,
        ),
        Measure(
            name="accuracy",
            title="Accuracy",
            meaning="Share of right answers.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name="guess_advantage",
            title="Hidden values guessed right, beyond guessing without the model",
            meaning="Share of training records whose hidden value is guessed right less what the same attacker guesses "
            "who never saw the model; 0 if the model tells nothing.",
            scale=Scale.SHARE,
            baseline=0.0,
            largest=1.0,
        ),
        Measure(
            name="guess_gap",
            title="That advantage on training records, beyond the one on other records",
            meaning="What the model gives away of the records that it was trained on rather than of everybody; 0 if "
            "both are alike.",
            scale=Scale.SHARE,
            baseline=0.0,
            largest=2.0,
        ),
        Measure(
            name="guess_accuracy",
            title="Hidden values guessed right",
            meaning="Share of training records whose hidden value is guessed right; compare with the next line.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name="guess_accuracy_without_target",
            title="Hidden values guessed right without the model",
            meaning="The same for an attacker who never saw the model.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name="fidelity",
            title="Answers on which the copy agrees with the model",
            meaning="Share of records to which a copy made from answers gives the model's own label.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name="fidelity_advantage",
            title="Agreement gained by asking the model",
            meaning="Fidelity less that of what the attacker had without one query.",
            scale=Scale.SHARE,
            baseline=0.0,
            largest=1.0,
        ),
        Measure(
            name="fidelity_without_target",
            title="Agreement without one query",
            meaning="Share of records on which the attacker agrees with the model who never asked it.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name="singling_out_advantage",
            title="People singled out among the training records, beyond others",
            meaning="Share of training records that some condition describes alone, less that of equally many others.",
            scale=Scale.SHARE,
            baseline=0.0,
            largest=1.0,
        ),
        Measure(
            name="singling_out_rate",
            title="People singled out among the training records",
            meaning="Share of training records that some condition describes alone; compare with the next line.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name="singling_out_rate_outside",
            title="People singled out among others",
            meaning="The same among equally many records that were not in.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name="similarity",
            title="Similarity of reconstructions to training records",
            meaning="Mean similarity to the record behind each reconstruction, or of each training record to its "
            "nearest one; records that have nothing to do with each other are alike to some degree too.",
            scale=Scale.SCORE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name="similarity_gap",
            title="That similarity, beyond the one to other records",
            meaning="Mean similarity to training records less that to records that were not in; 0 if both are alike.",
            scale=Scale.SCORE,
            baseline=0.0,
            largest=2.0,
        ),
        Measure(
            name="reconstruction_success",
            title="Trained models from which the added record was named",
            meaning="Share of models from whose steps the one added record was told from the other candidates.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
        ),
        Measure(
            name=EPSILON,
            title="Epsilon shown (lower bound)",
            meaning="The least epsilon that explains what the attack did; it can refute a claim, never prove one.",
            scale=Scale.NATS,
            baseline=0.0,
            largest=None,
        ),
    )
}

KNOWN_NAMES = (*_NAMED, "tpr_at_fpr_0.01", "tpr_at_fpr_0.001", "ppv_at_prior_0.1", "ppv_at_prior_0.01")


def measure(name: str) -> Measure:
    """Explain a measure by its name in the record.

    Args:
        name: "auc", "advantage", "epsilon", "tpr_at_fpr_0.01", "ppv_at_prior_0.1" and the like; any other name is a
            measure of a third party and gets its own name as title, no range and no baseline.

    Returns:
        The measure; `known` tells whether this program knows it.
    """
    if name in _NAMED:
        return _NAMED[name]
    for pattern, build in _PATTERNS:
        match = pattern.fullmatch(name)
        if match and 0 < float(match[1]) < 1:
            return build(name, match[1])
    return Measure(
        name=name,
        title=name.replace("_", " ").strip().capitalize() or "Unnamed measure",
        meaning="",
        scale=Scale.SCORE,
        baseline=None,
        largest=None,
        known=False,
    )
