"""How often reconstructing a record may succeed under DP-SGD at most, given how often it would without the model."""

import math

import numpy as np

_FINEST = 1e-3
_MOST_STEPS_AT_FINEST = 1_000
_LEAST_LOSS = -60.0


def rero_bound(prior_success: float, *, sampling_probability: float, noise_multiplier: float, steps: int) -> float:
    """Return the largest chance with which anybody reconstructs a record from a DP-SGD run, whatever their method.

    Whoever knows all other records and sees every step succeeds with the record out with probability at most `kappa`,
    the prior success; with the record in with at most gamma(kappa) = inf over all real epsilon of e^epsilon kappa +
    delta(epsilon), where delta is the privacy profile of the run with the record against the run without it. That is
    the best that any test of the two can reach at false positive rate kappa, so it cannot be improved by this route.

    Args:
        prior_success: kappa in (0, 1]: chance of success without the run, by the best guess from the prior alone.
        sampling_probability: q in (0, 1].
        noise_multiplier: Noise over the clipping norm, above 0.
        steps: At least 1.

    Returns:
        In [kappa, 1]; never too small, by at most what the accountant's grid adds.

    Raises:
        ValueError: If a value is out of range.

    Examples:
        >>> round(rero_bound(0.1, sampling_probability=1.0, noise_multiplier=1.0, steps=1), 3)
        0.389

    Source: Balle, Cherubin and Hayes 2022, "Reconstructing Training Data with Informed Adversaries"; Hayes,
    Mahloujifar and Balle 2023, "Bounding Training Data Reconstruction in DP-SGD", whose Monte Carlo over the
    likelihood ratio the privacy loss distribution replaces.
    """
    from dp_accounting.pld import privacy_loss_distribution

    for name, value, allowed in (
        ("prior_success", prior_success, 0 < prior_success <= 1),
        ("sampling_probability", sampling_probability, 0 < sampling_probability <= 1),
        ("noise_multiplier", noise_multiplier, 0 < noise_multiplier < math.inf),
        ("steps", steps, steps >= 1),
    ):
        if not allowed:
            raise ValueError(f"{name} is {value}; it is out of range")
    one = privacy_loss_distribution.from_gaussian_mechanism(
        standard_deviation=noise_multiplier,
        sampling_prob=sampling_probability,
        value_discretization_interval=_FINEST * max(1.0, steps / _MOST_STEPS_AT_FINEST),
    )
    # The direction with the record against without; the public methods give the worse of both directions.
    run = one._pmf_remove.self_compose(steps).to_dense_pmf()
    losses = (np.arange(run.size) + run._lower_loss) * run._discretization
    kept = losses >= _LEAST_LOSS  # lower corners are never the lowest point of a bound that is not trivial
    losses, chances = losses[kept], np.maximum(run._probs[kept], 0.0)  # composition leaves rounding below 0
    without = chances * np.exp(-losses)  # the same outputs' chances without the record
    beyond, beyond_without = (np.append(np.cumsum(mass[::-1])[::-1][1:], 0.0) for mass in (chances, without))
    # e^epsilon kappa + delta(epsilon) is convex and piecewise linear in e^epsilon: a corner is the lowest point. Beyond
    # log(1 / kappa) it is above 1.
    near = losses <= -math.log(prior_success)
    if not near.any():
        return 1.0
    growth = np.exp(losses[near])
    deltas = run._infinity_mass + beyond[near] - growth * beyond_without[near]
    found = growth * prior_success + np.maximum(deltas, 0.0)
    return float(min(1.0, max(prior_success, found.min())))
