"""Adaptive clipping: a threshold that follows the gradients, noise for the label with the smallest ones, Nadam.

Only the abstract of the paper is public. What it leaves open, and what we chose:

- *The threshold* follows a quantile (the median) of the norms. Literal: the raw quantile of the records of a step.
  Repaired: Andrew et al.'s noisy quantile by geometric updates, from `max_grad_norm` on.
- *Groups* are the labels; the gradient of a group is the mean of its clipped norms. Literal: the group with the
  smallest one in a lot is the one protected in the next lot (in the first lot all are); only its sum gets noise, and
  each group takes a step of its own. Repaired: the choice is by running means of noisy scores; the threshold
  follows the chosen group's noisy quantile, and noise by this threshold covers the one sum of all groups.
- *The privacy loss* is that of the Poisson-subsampled Gaussian. The paper would price its protected group like DP-SGD.
- *The descent* is Nadam with `defenses.nadam.Nadam`'s conditional smoothing, *the smoothed loss* cross-entropy with
  label smoothing of 0.1.
- *Batch normalisation*, which VGG may have had, is GroupNorm in `defenses.architectures.vgg`.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from defenses.defense import Defense, History, Prepared, Sampler, StepPromise
from defenses.errors import TrainingError
from defenses.gradients import GradientRule
from defenses.guarantee import Guarantee, Unaccounted
from defenses.mechanisms.clipping.noisy_quantile import NoisyQuantile
from defenses.mechanisms.clipping.raw_quantile import RawQuantile
from defenses.modes import Mode
from defenses.nadam import Nadam
from defenses.recipe import Recipe
from defenses.records import Records
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.updates import UpdateRule

# Where no noise is given for counts and scores, each of the two takes this share of the squared 1 / noise_multiplier.
SHARE = 0.01

UNPROTECTED = (
    "the records of every label but the chosen one are stepped without any noise, so their epsilon is infinite; and "
    "the threshold is a quantile of raw gradient norms, and the choice of the label looks at raw gradients"
)


@dataclass(frozen=True, kw_only=True)
class AdaptiveClipping(Defense):
    """Clip at a quantile of the norms, protect the label with the smallest gradients, and descend by Nadam.

    Give one of `epsilon`, `noise_multiplier` and `gradient_noise`. Repaired, one record moves the clipped sum by at
    most C, one count by 1/2 and one pair of scores by at most 1, so a step is one Gaussian of noise multiplier
    (gradient_noise^-2 + (2 count_noise)^-2 + score_noise^-2)^-1/2: that is `noise_multiplier`, and the noise on the
    gradients is larger, as far as counts and scores take their part of it. The multiplier is the same at every step,
    whatever was released before, so the steps compose like those of DP-SGD although the threshold adapts.

    Attributes:
        mode: Literal or repaired.
        labels: Number of labels of the records; public.
        epsilon: Target epsilon in nats; the least noise that meets it is used.
        noise_multiplier: Noise multiplier of a whole step (literal: of the noise on the chosen label's sum).
        gradient_noise: Standard deviation of the noise on the sum over the threshold, at least 0.
        count_noise: Standard deviation of the noise on each label's count, in records; None gives counts 1% of the
            step's squared privacy: 5 times the noise multiplier.
        score_noise: The same for each label's scores; None gives scores 1%: 10 times the noise multiplier.
        max_grad_norm: Threshold C of the first step, above 0; public.
        quantile: Share of gradients that shall stay unclipped, in (0, 1).
        threshold_rate: Step of the threshold's logarithm in the repaired mode, at least 0.
        smoothing: Decay of Nadam's first moment where gradient and mean disagree, in [0.9, 1); None is off.
        label_smoothing: Share of the target that the loss spreads over all classes, in [0, 1).
        delta: Failure probability of the guarantee, well below 1 / records.

    Raises:
        ValueError: If not exactly one noise is given, counts and scores take all of it, or a value is out of range.

    Source: Cheng et al. 2026 (abstract); Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping",
    for the noisy quantile and its price.
    """

    mode: Mode = Mode.REPAIRED
    labels: int = 10
    epsilon: float | None = None
    noise_multiplier: float | None = None
    gradient_noise: float | None = None
    count_noise: float | None = None
    score_noise: float | None = None
    max_grad_norm: float = 1.0
    quantile: float = 0.5
    threshold_rate: float = 0.2
    smoothing: float | None = 0.95
    label_smoothing: float = 0.1
    delta: float = 1e-5

    name = "adaptive_clipping"
    title = "adaptive clipping"
    paper = (
        "Cheng, Shang, Jiang and Du 2026, A Deep Learning Differential Privacy Protection Scheme Based on Adaptive "
        "Clipping"
    )
    example = {"noise_multiplier": 1.0, "labels": 2}

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("epsilon", "noise_multiplier", "gradient_noise")}
        if sum(value is not None for value in given.values()) != 1:
            said = ", ".join(f"{name} {value}" for name, value in given.items())
            raise ValueError(f"the noise is given as {said}; give exactly one of the three")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be in [0, 1)")
        for name in ("count_noise", "score_noise", "threshold_rate"):
            value = getattr(self, name)
            if value is not None and not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be at least 0 and finite")
        # The other ranges are those of the parts.
        Nadam(self.smoothing)
        asked = self.noise_multiplier if self.gradient_noise is None else self.gradient_noise
        self._priced(asked)
        RawQuantile(self.labels, self.max_grad_norm, self.quantile, asked or 0.0)
        if self.noise_multiplier is not None and self.mode is Mode.REPAIRED:
            self._split(self.noise_multiplier)

    @property
    def sampler(self) -> Sampler:  # type: ignore[override]
        """Poisson lots; literal, one step for each label of a lot."""
        return Sampler.POISSON_BY_LABEL if self.mode is Mode.LITERAL else Sampler.POISSON

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        """Leave the records as they are.

        Raises:
            TrainingError: If they have another number of labels than the scheme was told.
        """
        if records.classes != self.labels:
            raise TrainingError(
                f"scheme {self.name!r}: labels is {self.labels} but the records have {records.classes} labels; set "
                f"labels to {records.classes}"
            )
        return Prepared(records)

    def noises(self, lots: Lots) -> tuple[float, float, float]:
        """Return the standard deviations of the noise on sum (over C), counts and scores of a run with these lots.

        Literal, the first is that of the chosen label's sum, and the others are 0: nothing else is noised.
        """
        if self.mode is Mode.LITERAL:
            return self._asked(lots), 0.0, 0.0
        if self.gradient_noise is None:
            return self._split(self._asked(lots))
        counts, scores = self._answers(self.gradient_noise)
        return self.gradient_noise, counts, scores

    def joint_noise(self, lots: Lots) -> float:
        """Return the noise multiplier of the one Gaussian that a step is, or literally claims to be.

        It is 0 where an answer has no noise.
        """
        if self.gradient_noise is None or self.mode is Mode.LITERAL:
            return self._asked(lots)
        gradients, counts, scores = self.noises(lots)
        if min(gradients, counts, scores) == 0:
            return 0.0
        return math.hypot(1 / gradients, 1 / (2 * counts), 1 / scores) ** -1

    def gradient(self, lots: Lots) -> GradientRule:
        """Return the rule of the mode, with this run's noise."""
        if self.mode is Mode.LITERAL:
            return RawQuantile(self.labels, self.max_grad_norm, self.quantile, self.noises(lots)[0])
        expected = lots.batch_size / self.labels
        return NoisyQuantile(
            self.labels, expected, self.max_grad_norm, self.quantile, self.threshold_rate, *self.noises(lots)
        )

    def update(self, recipe: Recipe) -> UpdateRule:
        """Return Nadam with conditional smoothing, whatever the recipe's optimiser is."""
        return Nadam(self.smoothing)

    def steps(self, lots: Lots) -> StepPromise | None:
        """Return the noise on the gradients over the threshold in force.

        It is priced without counts and scores: canaries do not test those, so what they imply stays below what is
        proved by that share.
        """
        noise = self.noises(lots)[0]
        if noise == 0:
            return None
        return StepPromise((self.max_grad_norm,), noise, lambda n: self._priced(n).event(History(lots)), moves=True)

    def fixed(self, lots: Lots) -> "AdaptiveClipping":
        """Return the scheme with a given noise in place of a target."""
        if self.epsilon is None:
            return self
        return replace(self, epsilon=None, noise_multiplier=self._asked(lots))

    def event(self, history: History) -> Any:
        """Return the self-composed Poisson-sampled Gaussian of the joint noise; literal, why there is none."""
        if self.mode is Mode.LITERAL:
            return Unaccounted(UNPROTECTED)
        return self._priced(self.joint_noise(history.lots)).event(history)

    def claimed(self, history: History) -> Guarantee:
        """Return what the text would state: DP-SGD's figure for the noise on the protected label."""
        if self.epsilon is not None:
            return self._priced(None).claimed(history)
        return self._priced(self.joint_noise(history.lots)).claimed(history)

    def assumptions(self) -> tuple[str, ...]:
        """Return what the proof takes on trust."""
        if self.mode is Mode.LITERAL:
            return ("none suffices: the records of the labels that are not chosen get no noise",)
        return (
            *self._priced(1.0).assumptions(),
            "the labels there are and the first threshold are public; nothing is assumed of how frequent they are",
            "the descent reads released gradients only, and its rate and smoothing were not chosen on the records",
        )

    def _priced(self, noise: float | None) -> DPSGD:
        """Return the DP-SGD that costs what this costs, with this noise multiplier or the target epsilon."""
        epsilon = self.epsilon if noise is None else None
        return DPSGD(epsilon=epsilon, noise_multiplier=noise, max_grad_norm=self.max_grad_norm, delta=self.delta)

    def _asked(self, lots: Lots) -> float:
        """Return the noise multiplier that was asked for, or the least for the target epsilon."""
        if self.epsilon is not None:
            return self._priced(None).noise(lots)
        noise = self.gradient_noise if self.noise_multiplier is None else self.noise_multiplier
        assert noise is not None
        return noise

    def _answers(self, noise: float) -> tuple[float, float]:
        """Return the noise on counts and on scores beside a noise multiplier."""
        share = SHARE**-0.5
        counts = share * noise / 2 if self.count_noise is None else self.count_noise
        return counts, share * noise if self.score_noise is None else self.score_noise

    def _split(self, noise: float) -> tuple[float, float, float]:
        """Return the three noises that together are one Gaussian of this noise multiplier."""
        counts, scores = self._answers(noise)
        if noise == 0:
            return 0.0, counts, scores
        taken = math.inf if min(counts, scores) == 0 else (noise / (2 * counts)) ** 2 + (noise / scores) ** 2
        if taken >= 1:
            raise ValueError(
                f"count_noise {counts:g} and score_noise {scores:g} alone cost more than the noise multiplier "
                f"{noise:g} of a step allows; raise them (above {noise:g} and {2 * noise:g}, say), or leave them out"
            )
        return noise * (1 - taken) ** -0.5, counts, scores
