"""Integer Laplace noise, sampled exactly: by opendp from the system's entropy, or here from a secret key.

Noise Z on the integers with P(Z = z) proportional to exp(-|z| / scale). A floating-point Laplace deviate added to a
count leaks the count through the gaps between floating-point numbers (Mironov 2012); integers have no such gaps.

opendp takes its randomness from the operating system and cannot be seeded, as it should be for a release. A model of an
audit must be a function of its seed, so there the same distribution is drawn from a key stream, by the rejection scheme
of Canonne, Kamath and Steinke 2020 ("The Discrete Gaussian for Differential Privacy", Algorithms 1 and 2) in integer
arithmetic; the tests hold one against the other.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from defenses.records import BoolArray, IntArray

GRAIN = 2**20
"""Scales are multiples of 1 / GRAIN, which both samplers hold exactly."""
LARGEST = 2**32

Words = npt.NDArray[np.uint64]


def noise_scale(sensitivity: int, epsilon: float) -> Fraction:
    """Return the scale at which counts of this sensitivity cost at most epsilon: a multiple of 1 / GRAIN, rounded up.

    Args:
        sensitivity: L1 sensitivity, at least 1.
        epsilon: Above 0 and finite.

    Raises:
        ValueError: If epsilon is out of range, or so small that nothing but noise would be left.
    """
    if not (epsilon > 0 and np.isfinite(epsilon)):
        raise ValueError(f"epsilon is {epsilon}; it must be above 0 and finite")
    exact = sensitivity / Fraction(epsilon)
    if exact > LARGEST:
        raise ValueError(
            f"epsilon is {epsilon} for one table, noise of scale {float(exact):.3g}; give more, or fewer tables"
        )
    return Fraction(-((-exact * GRAIN) // 1), GRAIN)


def add_by_opendp(counts: IntArray, scale: Fraction, *, sensitivity: int, epsilon: float) -> IntArray:
    """Return counts with noise from opendp, which also checks the price.

    Args:
        counts: True counts.
        scale: From `noise_scale`.
        sensitivity: L1 sensitivity.
        epsilon: What the release may cost.

    Raises:
        ValueError: If opendp's own privacy map asks for more than epsilon.
    """
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_laplace
    from opendp.metrics import l1_distance
    from opendp.mod import GLOBAL_FEATURES, disable_features, enable_features

    ours = "contrib" not in GLOBAL_FEATURES  # a switch for the whole process: left as it was found
    if ours:
        enable_features("contrib")
    try:
        mechanism = make_laplace(vector_domain(atom_domain(T="i64")), l1_distance(T="i64"), scale=float(scale))
    finally:
        if ours:
            disable_features("contrib")
    cost = float(mechanism.map(sensitivity))  # type: ignore[no-untyped-call]
    if cost > epsilon * (1 + 1e-9):
        raise ValueError(f"opendp prices this table at epsilon {cost}, above {epsilon}; give more, or fewer tables")
    return np.array(mechanism(counts.tolist()), dtype=np.int64)


@dataclass
class KeyStream:
    """Uniform integers from AES-128 in counter mode: to who lacks the key they are as good as true randomness.

    Attributes:
        key: 16 secret bytes.
    """

    key: bytes

    def __post_init__(self) -> None:
        self._cipher = Cipher(algorithms.AES128(self.key), modes.CTR(bytes(16))).encryptor()

    def words(self, count: int) -> Words:
        """Return uniform 64-bit words."""
        return np.frombuffer(self._cipher.update(bytes(8 * count)), dtype="<u8").astype(np.uint64)

    def below(self, bounds: Words) -> Words:
        """Return integers uniform in 0 .. bound - 1, one for each bound (at least 1), by masking and rejection."""
        mask = bounds - np.uint64(1)
        for shift in (1, 2, 4, 8, 16, 32):
            mask |= mask >> np.uint64(shift)
        found = self.words(len(bounds)) & mask
        wrong = np.flatnonzero(found >= bounds)
        while wrong.size:
            found[wrong] = self.words(wrong.size) & mask[wrong]
            wrong = wrong[found[wrong] >= bounds[wrong]]
        return found

    def decays(self, numerators: Words, denominator: int) -> BoolArray:
        """Flip coins of chance exp(-numerator / denominator), for numerators in 0 .. denominator.

        With A_k a coin of chance x / k, the first k at which A_k fails is odd with probability exp(-x).
        """
        found = np.zeros(len(numerators), dtype=np.bool_)
        going, k = np.arange(len(numerators)), 1
        while going.size:
            bounds = np.full(going.size, denominator * k, dtype=np.uint64)
            holds = self.below(bounds) < numerators[going]
            found[going[~holds]] = k % 2 == 1
            going, k = going[holds], k + 1
        return found

    def laplace(self, scale: Fraction, count: int) -> IntArray:
        """Return `count` integers with P(z) proportional to exp(-|z| / scale)."""
        t, s = scale.numerator, scale.denominator
        found = np.zeros(count, dtype=np.int64)
        going = np.arange(count)
        while going.size:
            low = self.below(np.full(going.size, t, dtype=np.uint64))
            kept = self.decays(low, t)
            low, going_on = low[kept], going[kept]
            size = (low.astype(np.int64) + t * self._runs(low.size)) // s
            negative = (self.words(low.size) & np.uint64(1)).astype(np.bool_)
            done = ~(negative & (size == 0))  # zero has one sign only
            found[going_on[done]] = np.where(negative, -size, size)[done]
            going = np.concatenate([going[~kept], going_on[~done]])
        return found

    def _runs(self, count: int) -> IntArray:
        """Return how many coins of chance exp(-1) come up in a row."""
        found = np.zeros(count, dtype=np.int64)
        going = np.arange(count)
        while going.size:
            going = going[self.decays(np.ones(going.size, dtype=np.uint64), 1)]
            found[going] += 1
        return found
