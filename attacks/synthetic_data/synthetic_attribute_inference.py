"""Attribute inference from released rows: a row that equals the record in all that is known gives the rest away."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from attacks.capabilities import Capability
from attacks.inference.attribute_inference import codes_of, filled, hidden_column, imputed, without
from attacks.protocol import Attack, Guesses
from attacks.synthetic_data.nearest_synthetic import distances, in_parts
from attacks.threat_model import ThreatModel
from attacks.view import View
from defenses.progress import OnProgress, Progress, silent
from defenses.records import Column, Records

Float64Array = npt.NDArray[np.float64]

_TINY = 1e-9  # an identical row votes even where somebody of the population is identical too


def votes(records: Records, released: Records, population: Records, column: Column, *, reach: float) -> Float64Array:
    """Return how much released rows speak for each category of a hidden column, by how near they are in all others.

    Args:
        records: (n) whose column is hidden.
        released: (r) rows.
        population: (z) records of the same source, z at least 1, which say how near strangers are.
        column: The hidden one, of V categories.
        reach: Distance at which a vote is worth 1/e of an identical row's, as a share of the distance between the
            record and the nearest of the population.

    Returns:
        (n, V), at least 0: an identical row counts 1.
    """
    cast = np.eye(column.width)[codes_of(released.x, column)]
    # One value throughout, so that the hidden column adds nothing to a distance.
    asked, rows, strangers = (replace(some, x=filled(some.x, column, 0)) for some in (records, released, population))
    unit, found = np.zeros((len(records), 1)), np.zeros((len(records), column.width))
    for part in in_parts(asked, strangers):
        unit[part] = distances(asked.take(part), strangers).min(axis=1, keepdims=True)
    for part in in_parts(asked, rows):
        apart = distances(asked.take(part), rows)
        found[part] = np.exp(-apart / np.maximum(reach * unit[part], _TINY)) @ cast
    return found


@dataclass(frozen=True)
class SyntheticAttributeInference(Attack):
    """Guess a hidden column of each record by released rows that agree with it, and by imputation where none does.

    The rows that agree vote, and the imputed distribution has one vote. So a release of which no row is near anybody
    changes no guess, and what is right beyond `Guesses.without_target` comes from rows that are near a record, not from
    what the release teaches of people in general.

    Measured on Adult (1,000 members, 1,000 others, 1,000 rows released, 2,000 population records, means of 4 releases),
    right guesses of members: marital status, imputed 85.5%, with a tenth of copies among the rows 86.9%, half 91.9%,
    all 99.8%, with copies of which a fifth of the columns is redrawn 86.8%, with none 85.4%; occupation 36.4%, then
    41.9%, 67.8%, 97.6%, 49.8% and 35.7%. Of others marital status 82.9% and 82.9%, occupation 36.3% and 35.5%, whatever
    the release.

    Attributes:
        attribute: Name of the hidden categorical column.
        reach: Distance at which a row's vote is worth 1/e of an identical row's, as a share of the distance between the
            record and the nearest of the population; above 0.

    Source: Giomi et al. 2023, "A Unified Framework for Quantifying Privacy Risk in Synthetic Data", inference risk.
    Deviations: rows vote by their distance, and beside an imputation from population records, where the paper takes the
    nearest row's value whatever its distance.
    """

    attribute: str
    reach: float = 0.2

    name = "synthetic_attribute_inference"
    title = "Attribute inference from released rows"
    paper = "Giomi et al. 2023, A Unified Framework for Quantifying Privacy Risk in Synthetic Data"
    claims = Guesses
    example = {"attribute": "colour"}

    def __post_init__(self) -> None:
        if not self.reach > 0:
            raise ValueError(f"reach is {self.reach}; it must be above 0")

    @property
    def requires(self) -> ThreatModel:  # type: ignore[override]
        """Released rows, the records with the attribute hidden, and others that show it."""
        wanted = frozenset({Capability.SYNTHETIC, Capability.RECORDS})
        return ThreatModel(wanted, population=True, hidden=(self.attribute,))

    def run(self, view: View, *, rng: np.random.Generator, on_progress: OnProgress = silent) -> Guesses:
        """Return the likeliest category of each candidate, with and without the released rows.

        Raises:
            NotApplicableError: If records have no such categorical column.
        """
        column = hidden_column(view.facts.kind, self.attribute)
        records, population = view.candidates, view.population
        on_progress(Progress("imputing the hidden column", 0, 2))
        prior = imputed(
            without(population, column),
            codes_of(population.x, column),
            without(records, column),
            categories=column.width,
            seed=int(rng.integers(2**31)),
        )
        on_progress(Progress("looking for rows that agree", 1, 2))
        posterior = prior + votes(records, view.synthetic, population, column, reach=self.reach)
        return Guesses(posterior.argmax(1), prior.argmax(1), self.attribute)
