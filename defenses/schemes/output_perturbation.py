"""Output perturbation: a regularised linear model is fitted without noise, and noise is added to what came out."""

import enum
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dp_accounting
import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from defenses.calibration import calibrate
from defenses.defense import Defense, History
from defenses.ensemble import Ensemble, Trace
from defenses.errors import TrainingError
from defenses.events import PureDpEvent
from defenses.guarantee import Guarantee, Neighboring
from defenses.progress import OnProgress, Progress
from defenses.randomness import stream
from defenses.records import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from defenses.defense import Job

Float64Array = npt.NDArray[np.float64]

# A record's loss has a gradient of at most |p - e_y| |(x, 1)|, and |p - e_y| <= sqrt(2), |(x, 1)| <= sqrt(2).
LIPSCHITZ = 2.0
# Greatest length of the objective's gradient where the solver stops, over LIPSCHITZ / n: it enters the noise.
TOLERANCE = 1e-3
_ITERATIONS = 10_000


class Law(enum.StrEnum):
    """The law of the noise."""

    EXPONENTIAL = "exponential"  # density in proportion to exp(-epsilon |b| / sensitivity): pure epsilon
    GAUSSIAN = "gaussian"


def sensitivity(regularization: float, expected_members: int) -> float:
    """Return how far one replaced record can move the weights that the solver finds, in L2.

    The objective is lambda-strongly convex whatever the records, and one record moves its gradient by at most
    2 LIPSCHITZ / n; so its minimum moves by at most that over lambda. Each of two solutions lies within
    TOLERANCE LIPSCHITZ / (n lambda) of its minimum, by the length of the gradient there.

    Args:
        regularization: lambda, above 0.
        expected_members: n, the public constant that the losses are divided by.
    """
    return 2 * LIPSCHITZ * (1 + TOLERANCE) / (expected_members * regularization)


def solve(x: Float64Array, y: IntArray, classes: int, *, regularization: float, members: int) -> Float64Array:
    """Minimise sum of multinomial logistic losses / n + lambda / 2 |W|^2 to the tolerance that the noise allows for.

    Args:
        x: (m, d) rows, a constant among the features where there is to be an intercept.
        y: (m,) labels.
        classes: C; classes without a record count as well.
        regularization: lambda, above 0.
        members: n, that the sum is divided by.

    Returns:
        W (C, d).

    Raises:
        TrainingError: If the solver does not get there.
    """
    target = np.eye(classes)[y]

    def objective(flat: Float64Array) -> tuple[float, Float64Array]:
        weights = flat.reshape(classes, -1)
        logits = x @ weights.T
        total = logsumexp(logits, axis=1, keepdims=True)
        loss = (total.sum() - (logits * target).sum()) / members + regularization / 2 * flat @ flat
        slope = (np.exp(logits - total) - target).T @ x / members + regularization * weights
        return float(loss), slope.ravel()

    at, allowed = np.zeros(classes * x.shape[1]), TOLERANCE * LIPSCHITZ / members
    for _ in range(5):  # started afresh it gets past the point where rounding stopped its line search
        at = minimize(
            objective,
            at,
            jac=True,
            method="L-BFGS-B",
            options={"gtol": allowed / math.sqrt(len(at)), "ftol": 0.0, "maxiter": _ITERATIONS, "maxcor": 30},
        ).x
        if np.linalg.norm(objective(at)[1]) <= allowed:
            return np.asarray(at.reshape(classes, -1), dtype=np.float64)
    raise TrainingError(
        f"the solver stopped at a gradient of {np.linalg.norm(objective(at)[1]):.2g}, above the {allowed:.2g} that the "
        "noise allows for; use a larger regularization"
    )


@dataclass(frozen=True, kw_only=True)
class OutputPerturbation(Defense):
    """L2-regularised multinomial logistic regression with noise on its weights; for linear networks alone.

    Records are divided by `record_norm` and then scaled down to length 1 where they are longer; the intercept is the
    weight of a constant feature of 1, regularised like the others. What is released are weights for records as they
    are, so the network is asked about those. The recipe's lots and learning rate have no effect, but for the nominal
    number of records, which is the public n that the losses are divided by.

    The mode of the papers' schemes is missing here: what the text says is what it guarantees, once the solver's
    tolerance is allowed for.

    Attributes:
        epsilon: In nats, above 0 and finite.
        delta: For `gaussian`, in (0, 1).
        regularization: lambda, above 0: noise falls with it, and so does what the model can learn.
        record_norm: Length of records, above 0, chosen without looking at them; longer ones are scaled down.
        noise: Its law.

    Raises:
        ValueError: If a value is out of range.

    Source: Chaudhuri, Monteleoni and Sarwate 2011, "Differentially Private Empirical Risk Minimization", Algorithm 1:
    sensitivity 2 / (n lambda) for two classes and records up to length 1. With C classes the gradient of a record's
    loss is longer by sqrt(2), and the intercept's feature makes records longer by sqrt(2): 4 / (n lambda).
    """

    epsilon: float
    delta: float = 1e-5
    regularization: float = 0.01
    record_norm: float = 1.0
    noise: Law = Law.EXPONENTIAL

    name = "output_perturbation"
    title = "output perturbation"
    paper = "Chaudhuri et al. 2011, Differentially Private Empirical Risk Minimization"
    neighboring = Neighboring.REPLACE_ONE
    trains_itself = True
    example = {"epsilon": 1.0}
    example_hidden = ()

    def __post_init__(self) -> None:
        for name, value in (
            ("epsilon", self.epsilon), ("regularization", self.regularization), ("record_norm", self.record_norm)
        ):  # fmt: skip
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be above 0 and finite")
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is {self.delta}; it must be in (0, 1)")

    def train(
        self, job: "Job", included: BoolArray, seeds: Sequence[int], *, device: str, on_progress: OnProgress
    ) -> Ensemble:
        """Fit each model's weights on the CPU and add its noise.

        Raises:
            TrainingError: If the network has hidden layers, or the solver does not reach its tolerance.
        """
        architecture, dtype = job.recipe.architecture, job.recipe.precision.dtype
        if architecture.name != "mlp" or list(architecture.options.get("hidden", (128,))):
            raise TrainingError(
                f"scheme {self.name!r} fits linear models alone, whose minimum is known to move little; architecture "
                f"{architecture.name!r} with options {dict(architecture.options)} is none: use mlp with hidden = []"
            )
        rows = self._rows(job.records.x)
        weights = []
        for k, seed in enumerate(seeds):
            fitted = solve(
                rows[included[k]],
                job.records.y[included[k]],
                job.records.classes,
                regularization=self.regularization,
                members=job.recipe.lots.expected_members,
            )
            weights.append(fitted + self.drawn(fitted.shape, job.recipe.lots.expected_members, stream(seed, "noise")))
            on_progress(Progress("training", k + 1, len(seeds)))
        released = torch.from_numpy(np.stack(weights))
        parameters = {"1.weight": released[..., :-1] / self.record_norm, "1.bias": released[..., -1]}
        return Ensemble(
            architecture,
            job.records.shape,
            job.records.classes,
            {name: value.to(dtype).contiguous() for name, value in parameters.items()},
            tuple(Trace({}, {}) for _ in seeds),
        )

    def drawn(self, shape: tuple[int, ...], expected_members: int, rng: np.random.Generator) -> Float64Array:
        """Return noise for weights of this shape."""
        most = sensitivity(self.regularization, expected_members)
        direction = rng.standard_normal(shape)
        if self.noise is Law.GAUSSIAN:
            # The event's multiplier is relative to what one record adds, and replacing one moves twice that.
            return np.asarray(_multiplier(self.epsilon, self.delta) * most / 2 * direction, dtype=np.float64)
        length = rng.gamma(math.prod(shape), most / self.epsilon)
        return np.asarray(length * direction / np.linalg.norm(direction), dtype=np.float64)

    def event(self, history: History) -> Any:
        """Return one release, of pure epsilon or of the Gaussian mechanism."""
        if self.noise is Law.GAUSSIAN:
            return dp_accounting.GaussianDpEvent(_multiplier(self.epsilon, self.delta))
        return PureDpEvent(self.epsilon)

    def claimed(self, history: History) -> Guarantee:
        """Return the target."""
        delta = self.delta if self.noise is Law.GAUSSIAN else 0.0
        return Guarantee(self.epsilon, delta, self.neighboring, self.unit, accountant="target of the plan")

    def assumptions(self) -> tuple[str, ...]:
        """Return what the proof takes on trust."""
        return (
            "the nominal training size, the length of records and the regularisation are chosen without the records",
            "noise is in floating point from a pseudo-random generator with a secret seed, as if it were exact",
            "the solver's gradient is computed exactly enough to be compared with its tolerance",
        )

    def _rows(self, x: FloatArray) -> Float64Array:
        flat = x.reshape(len(x), -1).astype(np.float64) / self.record_norm
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1.0)
        return np.hstack([flat, np.ones((len(flat), 1))])


@functools.lru_cache(maxsize=64)
def _multiplier(epsilon: float, delta: float) -> float:
    return calibrate(dp_accounting.GaussianDpEvent, epsilon=epsilon, delta=delta, neighboring=Neighboring.REPLACE_ONE)
