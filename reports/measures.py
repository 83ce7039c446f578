"""The registry of measures: names, words, ranges, what guessing gives, and which kinds of claims they are taken of.

Nothing else says what a measure is. A measure whose value under guessing is not known has the baseline None: no figure
of it alone can show that an attack beats guessing.
"""

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass

EPSILON = "epsilon"
AUC = "auc"
ADVANTAGE = "advantage"
SIMILARITY = "similarity"
SIMILARITY_GAP = "similarity_gap"
_TPR = "tpr_at_fpr_"
_PPV = "ppv_at_prior_"

MEMBERSHIP, RECONSTRUCTION = "membership", "reconstruction"
ATTRIBUTES, EXTRACTION, SINGLING_OUT = "attributes", "extraction", "singling_out"
_RANKING = frozenset({MEMBERSHIP, RECONSTRUCTION})


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
        short: The field's name for it, as engineers read it.
        meaning: One sentence on how to read the number.
        scale: How its numbers are written.
        baseline: What an attack that knows nothing gets; None where that is not known.
        largest: The largest value it can take; None where it has no end.
        claims: Kinds of claims that it is taken of; none where a limit cannot be set on it.
        known: Whether this program knows the measure; third-party attacks may bring their own.
        fpr: The false-positive rate at which it is taken, if it is.
        prior: The share of members among candidates that it assumes, if it does.
    """

    name: str
    title: str
    meaning: str
    scale: Scale
    baseline: float | None
    largest: float | None
    short: str = ""
    claims: frozenset[str] = frozenset()
    known: bool = True
    fpr: float | None = None
    prior: float | None = None


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
        short=f"TPR at {_share(rate)} FPR",
        claims=_RANKING,
        fpr=float(rate),
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
        short=f"predictive value at a prior of {_share(prior)}",
        claims=_RANKING,
        prior=float(prior),
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
            name=AUC,
            title="Members ranked above non-members (AUC)",
            meaning="Chance that a random member scores above a random non-member; guessing gives 0.5.",
            scale=Scale.SCORE,
            baseline=0.5,
            largest=1.0,
            short="AUC",
            claims=_RANKING,
        ),
        Measure(
            name=ADVANTAGE,
            title="Membership advantage",
            meaning="Share of members found minus share of false alarms at the attack's best threshold; guessing "
            "gives 0.",
            scale=Scale.SCORE,
            baseline=0.0,
            largest=1.0,
            short="membership advantage",
            claims=_RANKING,
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
            short="advantage over guessing without the target",
            claims=frozenset({ATTRIBUTES}),
        ),
        Measure(
            name="guess_gap",
            title="That advantage on training records, beyond the one on other records",
            meaning="What the model gives away of the records that it was trained on rather than of everybody; 0 if "
            "both are alike.",
            scale=Scale.SHARE,
            baseline=0.0,
            largest=2.0,
            short="advantage on training records over that on others",
            claims=frozenset({ATTRIBUTES}),
        ),
        Measure(
            name="guess_accuracy",
            title="Hidden values guessed right",
            meaning="Share of training records whose hidden value is guessed right; compare with the next line.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
            short="share of right guesses",
            claims=frozenset({ATTRIBUTES}),
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
            short="fidelity of the copy",
            claims=frozenset({EXTRACTION}),
        ),
        Measure(
            name="fidelity_advantage",
            title="Agreement gained by asking the model",
            meaning="Fidelity less that of what the attacker had without one query.",
            scale=Scale.SHARE,
            baseline=0.0,
            largest=1.0,
            short="fidelity gained by queries",
            claims=frozenset({EXTRACTION}),
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
            short="advantage of singling out",
            claims=frozenset({SINGLING_OUT}),
        ),
        Measure(
            name="singling_out_rate",
            title="People singled out among the training records",
            meaning="Share of training records that some condition describes alone; compare with the next line.",
            scale=Scale.SHARE,
            baseline=None,
            largest=1.0,
            short="share singled out",
            claims=frozenset({SINGLING_OUT}),
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
            name=SIMILARITY,
            title="Similarity of reconstructions to training records",
            meaning="Mean similarity to the record behind each reconstruction, or of each training record to its "
            "nearest one; records that have nothing to do with each other are alike to some degree too.",
            scale=Scale.SCORE,
            baseline=None,
            largest=1.0,
            short="mean similarity to the training records",
            claims=frozenset({RECONSTRUCTION}),
        ),
        Measure(
            name=SIMILARITY_GAP,
            title="That similarity, beyond the one to other records",
            meaning="Mean similarity to training records less that to records that were not in; 0 if both are alike.",
            scale=Scale.SCORE,
            baseline=0.0,
            largest=2.0,
            short="mean similarity beyond that to other records",
            claims=frozenset({RECONSTRUCTION}),
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


def tpr_name(fpr: float) -> str:
    """Return the name of the true-positive rate at a false-positive rate in (0, 1), such as "tpr_at_fpr_0.01"."""
    return f"{_TPR}{_open_unit(fpr, 'fpr'):g}"


def ppv_name(prior: float) -> str:
    """Return the name of the predictive value at a prior in (0, 1), such as "ppv_at_prior_0.1"."""
    return f"{_PPV}{_open_unit(prior, 'prior'):g}"


def limited_measure(name: str) -> Measure:
    """Explain a measure that a limit can be set on.

    Args:
        name: As `measure` takes it.

    Raises:
        ValueError: If there is no such measure, or it is spelled otherwise in reports; names the spelling.
    """
    found = measure(name)
    if not found.claims:
        there = [known.name for known in _NAMED.values() if known.claims]
        raise ValueError(
            f"no measure is called {name!r}; there are {', '.join(there)}, {_TPR}F and {_PPV}P with F and P in (0, 1)"
        )
    spelled = tpr_name(found.fpr) if found.fpr is not None else ppv_name(found.prior) if found.prior else found.name
    if spelled != name:
        raise ValueError(f"measure {name!r} is spelled {spelled!r}")
    return found


def _open_unit(value: float, name: str) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must lie in (0, 1)")
    return value
