"""Deep differential privacy layer by layer: a threshold and a share of the budget for each layer of the network."""

import enum
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dp_accounting
import numpy as np
import torch
from torch import Tensor

from defenses.accounting import account
from defenses.calibration import calibrate
from defenses.defense import Defense, History, Prepared, Sampler, StepPromise
from defenses.errors import TrainingError
from defenses.gradients import ClippedGaussian
from defenses.guarantee import Guarantee, Unaccounted
from defenses.input_transform import make_input_transform
from defenses.mechanisms.principal_components import fit, fit_once, fit_privately
from defenses.modes import Mode
from defenses.randomness import Noise
from defenses.records import Records
from defenses.sampling import Lots
from defenses.schemes.dp_sgd import DPSGD
from defenses.updates import Tensors

STATED_EPSILON, STATED_DELTA, LAYERS = 0.5, 1e-5, "layers"  # the paper's, at every noise; a name in the rule's state
Shares = tuple[float, ...]


class Pca(enum.StrEnum):
    """What principal components are fitted on."""

    PUBLIC = "public"  # the job's public records: free
    DP = "dp"  # the members' second moments with noise, which is priced
    LITERAL = "literal"  # the members as they are


@dataclass(frozen=True)
class LayerwiseGaussian(ClippedGaussian):
    """Clip each layer's gradient at its own threshold and add Gaussian noise to the sum, of its own scale per layer.

    A layer is a module with parameters of its own: its weight and bias are clipped together. Layer l of L has the
    threshold C_l = C sqrt(c_l) with shares c_l that sum to 1, so that all layers together have at most norm C. With
    noise sigma_l C_l on layer l, one record moves the sum by at most (sum sigma_l^-2)^(1/2) standard deviations. That
    is 1 / sigma where sigma_l = sigma / sqrt(w_l), with shares w_l that sum to 1, and sqrt(L) / sigma where
    sigma_l = sigma.

    Attributes:
        max_grad_norm: C, above 0.
        noise_multiplier: sigma, at least 0.
        clip_shares: c_l in the order of the layers; None for equal ones.
        budget_shares: w_l in that order; None for those of the thresholds, with which all numbers get the same noise.
        joint: Whether the noise is scaled to the joint norm; otherwise sigma_l = sigma.

    Raises:
        ValueError: If a value is out of range.
    """

    clip_shares: Shares | None = None
    budget_shares: Shares | None = None
    joint: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, shares in (("clip_shares", self.clip_shares), ("budget_shares", self.budget_shares)):
            if shares is not None and not (all(share > 0 for share in shares) and abs(sum(shares) - 1) < 1e-6):
                raise ValueError(f"{name} is {shares}; give one share above 0 for each layer, which sum to 1")
        if self.clip_shares and self.budget_shares and len(self.clip_shares) != len(self.budget_shares):
            raise ValueError(
                f"clip_shares names {len(self.clip_shares)} layers, budget_shares {len(self.budget_shares)}; both must "
                "have one share for each layer"
            )

    def groups(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the layer of each parameter, numbered in order; a layer is what comes before the last dot.

        Raises:
            TrainingError: If there are shares for another number of layers.
        """
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        for field, shares in (("clip_shares", self.clip_shares), ("budget_shares", self.budget_shares)):
            if shares is not None and len(shares) != len(layers):
                raise TrainingError(
                    f"{field} has {len(shares)} shares, the network {len(layers)} layers with parameters "
                    f"({', '.join(layers)}); give one share for each"
                )
        return tuple(layers.index(name.rpartition(".")[0]) for name in names)

    def thresholds(self, layers: int) -> list[float]:
        """Return C_l for each of L layers."""
        return [self.max_grad_norm * math.sqrt(share) for share in self.clip_shares or [1 / layers] * layers]

    def scales(self, layers: int) -> list[float]:
        """Return the standard deviation of the noise on every number of each of L layers."""
        thresholds = self.thresholds(layers)
        if not self.joint:
            return [self.noise_multiplier * threshold for threshold in thresholds]
        budgets = self.budget_shares or self.clip_shares or [1 / layers] * layers
        return [
            self.noise_multiplier * threshold / math.sqrt(budget)
            for threshold, budget in zip(thresholds, budgets, strict=True)
        ]

    def initial(self) -> Tensors:
        """Return the number of layers, not yet known."""
        return {LAYERS: torch.tensor(0.0)}

    def factors(self, norms: Tensor, y: Tensor, mask: Tensor, state: Tensors) -> tuple[Tensor, Tensor]:
        """Return min(1, C_l / norm) for each layer of real examples, 0 for padding and where a norm is not finite."""
        columns = [
            torch.where(norm > threshold, threshold / norm, torch.ones_like(norm))
            for norm, threshold in zip(norms.unbind(1), self.thresholds(norms.shape[1]), strict=True)
        ]
        weights = torch.where(torch.isfinite(norms), torch.stack(columns, dim=1), torch.zeros_like(norms))
        return weights * mask[:, None].to(norms.dtype), norms.new_zeros((len(norms), 0))

    def release(self, sums: Tensors, statistic_sums: Tensor, state: Tensors, noise: Noise) -> tuple[Tensors, Tensors]:
        """Add each layer's noise, and note how many layers there are."""
        groups = dict(zip(sums, self.groups(list(sums)), strict=True))
        layers = max(groups.values()) + 1
        after = {LAYERS: torch.full_like(state[LAYERS], float(layers))}
        scales, drawn = self.scales(layers), noise.normal(sums)
        return {name: value.add(drawn[name], alpha=scales[groups[name]]) for name, value in sums.items()}, after


@dataclass(frozen=True, kw_only=True)
class LayerwiseDP(Defense):
    """DP-SGD with thresholds and budgets for single layers, on records projected on a few principal components.

    Give either the noise or the epsilon it is to be chosen for. `repaired` scales the noise to the joint norm of all
    layers, so the step costs what DP-SGD's costs. `literal` gives each of L layers noise of sigma times its own
    threshold: that is DP-SGD at sigma / sqrt(L), and priced as such once the network is known. With shares given, the
    number of layers is known beforehand, and gradient canaries can test the steps.

    Attributes:
        mode: `literal` or `repaired`.
        epsilon: Target epsilon in nats, the private components' share included; in `literal`, with a step priced as the
            text prices it.
        noise_multiplier: sigma, at least 0.
        max_grad_norm: C, the greatest joint norm of a clipped gradient; it does not enter epsilon.
        delta: Failure probability of the guarantee, in (0, 1) and well below 1 / records.
        clip_shares: Share of C^2 for each layer, in order and summing to 1; equal ones by default.
        budget_shares: Share of sigma^-2 for each layer (`repaired` alone); those of the thresholds by default.
        components: Principal components that records are reduced to, at least 1; None leaves records as they are.
        pca: What the components are fitted on; `literal` in `literal` mode alone.
        pca_noise_multiplier: For `dp`: noise on the second moments over `pca_row_norm`^2, above 0.
        pca_row_norm: For `dp`: public length that rows are scaled down to before their second moments, above 0.

    Raises:
        ValueError: If a value is out of range, or given where it has no effect.

    Source: deep DP with DCGAN feedback, after Abadi et al. 2016; thresholds as in McMahan et al. 2018. The paper does
    not say how its budget is parted among layers, nor what its components are fitted on.
    """

    mode: Mode = Mode.REPAIRED
    epsilon: float | None = None
    noise_multiplier: float | None = None
    max_grad_norm: float = 4.0
    delta: float = 1e-5
    clip_shares: Shares | None = None
    budget_shares: Shares | None = None
    components: int | None = None
    pca: Pca = Pca.PUBLIC
    pca_noise_multiplier: float | None = None
    pca_row_norm: float = 1.0

    name = "layerwise_dp"
    title = "layer-wise deep DP"
    paper = "Deep differential privacy with DCGAN feedback"
    sampler = Sampler.POISSON
    example = {"noise_multiplier": 1.0}

    def __post_init__(self) -> None:
        DPSGD(epsilon=self.epsilon, noise_multiplier=self.noise_multiplier, delta=self.delta)
        if self.mode is Mode.LITERAL and self.budget_shares is not None:
            raise ValueError("budget_shares has no effect in mode literal: each layer has sigma; use mode repaired")
        if self.mode is Mode.REPAIRED and self.pca is Pca.LITERAL:
            raise ValueError("pca is literal, which nothing can price; in mode repaired choose public or dp")
        if self.components is not None and self.components < 1:
            raise ValueError(f"components is {self.components}; it must be at least 1, or left out")
        private = self.components is not None and self.pca is Pca.DP
        if private != (self.pca_noise_multiplier is not None):
            raise ValueError(
                f"pca_noise_multiplier is {self.pca_noise_multiplier}; give it with components and pca = dp, never else"
            )
        for name in ("pca_noise_multiplier", "pca_row_norm"):
            if (value := getattr(self, name)) is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; it must be a positive number")
        self._rule(self.noise_multiplier or 0.0)

    @property
    def uses_public(self) -> bool:  # type: ignore[override]
        """Whether components are fitted on public records."""
        return self.components is not None and self.pca is Pca.PUBLIC

    def prepare(self, records: Records, rng: np.random.Generator, *, public: Records | None = None) -> Prepared:
        """Project on the principal components, which the released model carries.

        Raises:
            TrainingError: If the records do not have so many components.
        """
        if self.components is None:
            return Prepared(records)
        try:
            if self.pca is Pca.DP:
                assert self.pca_noise_multiplier is not None
                noise = {"row_norm": self.pca_row_norm, "noise_multiplier": self.pca_noise_multiplier}
                found = fit_privately(records.x, self.components, **noise, rng=rng)
            elif self.pca is Pca.LITERAL:
                found = fit(records.x, self.components)
            else:
                assert public is not None
                found = fit_once(public, self.components)
        except ValueError as error:
            raise TrainingError(f"scheme {self.name!r}: {error}") from error
        front = make_input_transform(found.center.reshape(records.shape), 1.0, shape=records.shape, basis=found.basis)
        facts = {"components": self.components, "fitted_on": self.pca.value}
        return Prepared(replace(records, x=front.apply_to(records.x)), facts, front)

    def noise(self, lots: Lots) -> float:
        """Return sigma for a run with these lots."""
        if self.noise_multiplier is not None:
            return self.noise_multiplier
        assert self.epsilon is not None
        return _calibrated(lots, self.pca_noise_multiplier, self.epsilon, self.delta)

    def gradient(self, lots: Lots) -> LayerwiseGaussian:
        """Return the clipping rule with this run's noise."""
        return self._rule(self.noise(lots))

    def steps(self, lots: Lots) -> StepPromise | None:
        """Return each layer's threshold and the noise on all of them, where shares say how many layers there are."""
        shares, rule = self.clip_shares or self.budget_shares, self.gradient(lots)
        if not shares or rule.noise_multiplier == 0 or (self.components is not None and self.pca is Pca.LITERAL):
            return None
        sigma = rule.noise_multiplier / (1 if rule.joint else math.sqrt(len(shares)))
        priced = functools.partial(_event, lots, self.pca_noise_multiplier)
        return StepPromise(tuple(rule.thresholds(len(shares))), sigma, priced)

    def fixed(self, lots: Lots) -> "LayerwiseDP":
        """Return the scheme with a given noise in place of a target."""
        return replace(self, epsilon=None, noise_multiplier=self.noise(lots))

    def event(self, history: History) -> Any:
        """Return the composition of Poisson-sampled Gaussians, after that of the components where they are private."""
        if self.components is not None and self.pca is Pca.LITERAL:
            return Unaccounted(
                "the principal components are fitted on the members' records as they are, without noise, so one record "
                "can move what every other is projected to"
            )
        sigma = self.noise(history.lots)
        if self.mode is Mode.LITERAL:
            layers = history.state.get(LAYERS) or len(self.clip_shares or ())
            if not layers:
                return Unaccounted(
                    "L layers with noise of sigma each cost as much as one with sigma / sqrt(L), and the number of "
                    "layers is not known before a network is trained"
                )
            sigma /= math.sqrt(layers)
        return _event(history.lots, self.pca_noise_multiplier, sigma)

    def claimed(self, history: History) -> Guarantee:
        """Return the target; without one, `literal` the paper's 0.5 at any noise, and `repaired` what can be proved."""
        stated = functools.partial(Guarantee, neighboring=self.neighboring, unit=self.unit)
        if self.epsilon is not None:
            return stated(self.epsilon, self.delta, accountant="target of the plan")
        if self.mode is Mode.LITERAL:
            return stated(STATED_EPSILON, STATED_DELTA, accountant="the paper's fixed budget")
        found = account(self.event(history), delta=self.delta, neighboring=self.neighboring)
        assert isinstance(found, Guarantee)
        return stated(found.epsilon, self.delta, accountant=found.accountant)

    def assumptions(self) -> tuple[str, ...]:
        """Return what the proof takes on trust."""
        public = ("the principal components are those of public records",) if self.uses_public else ()
        return (*DPSGD(noise_multiplier=1.0).assumptions(), *public)

    def _rule(self, noise_multiplier: float) -> LayerwiseGaussian:
        return LayerwiseGaussian(
            self.max_grad_norm, noise_multiplier, self.clip_shares, self.budget_shares, joint=self.mode is Mode.REPAIRED
        )


def _event(lots: Lots, pca_noise_multiplier: float | None, noise_multiplier: float) -> Any:
    steps = DPSGD(noise_multiplier=noise_multiplier).event(History(lots))
    if pca_noise_multiplier is None:
        return steps
    return dp_accounting.ComposedDpEvent([dp_accounting.GaussianDpEvent(pca_noise_multiplier), steps])


@functools.lru_cache(maxsize=64)
def _calibrated(lots: Lots, pca_noise_multiplier: float | None, epsilon: float, delta: float) -> float:
    return calibrate(functools.partial(_event, lots, pca_noise_multiplier), epsilon=epsilon, delta=delta)
