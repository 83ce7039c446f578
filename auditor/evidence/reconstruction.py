"""Reconstructions: how near they come to training records, beside others; what is measured, said and doubted of it."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from attacks.protocol import Attack, Reconstructions
from attacks.similarity import similarities
from auditor.evidence.claim_kind import ClaimKind, Joined
from auditor.evidence.mean_similarity import mean_similarity, similarity_gap
from auditor.evidence.ranking import Ranking
from auditor.evidence.reconstruction_comparison import Reconstructed, by_chance, compare, flagged, in_words
from auditor.subject import AttackTarget
from reports.measures import RECONSTRUCTION, SIMILARITY, SIMILARITY_GAP
from reports.records.report import CopyRecord, Estimate


@dataclass(frozen=True)
class ReconstructionEvidence(Joined):
    """Reconstructions compared with the candidates.

    Attributes:
        compared: Similarities, and what chance explains of them.
        ranked: A candidate scores as its most similar reconstruction.
    """

    compared: Reconstructed
    ranked: Ranking

    @property
    def ranking(self) -> Ranking:
        """Candidates by the similarity of their most similar reconstruction."""
        return self.ranked

    @property
    def remarks(self) -> list[str]:
        """What people read of the comparison."""
        return in_words(self.compared)

    @property
    def copies(self) -> CopyRecord:
        """How many reconstructions are copies of training records, and what would have been seen."""
        compared = self.compared
        return CopyRecord(
            reconstructions=compared.count,
            similarity=compared.measure,
            copy_rate=compared.leakage.copy_rate,
            expected_copy_rate=compared.leakage.expected_copy_rate,
            p_value=compared.leakage.p_value,
            tpr_p_value=compared.leakage.tpr_p_value,
            copy_p_value=compared.leakage.copy_p_value,
            least_seen=compared.least_seen,
            class_means=compared.class_means,
        )

    def measures(self, *, level: float, wanted: Collection[str] = ()) -> dict[str, Estimate]:
        """Return the measures of the ranking, and mean similarities where wanted; arguments as in `Joined.measures`."""
        found = self.ranked.measures(level=level, wanted=wanted)
        scores, included, unit = self.ranked.by_unit
        averages = {SIMILARITY: mean_similarity, SIMILARITY_GAP: similarity_gap}
        for name, average in averages.items():
            if name in wanted:
                found[name] = average(self.compared, scores, included, level=level, unit=unit)
        return found

    def doubt(self, measure: str, maximum: float) -> str | None:
        """Return why an average within its limit would hide copies of a few records, or None."""
        compared = self.compared
        if measure == SIMILARITY and compared.paired is not None and compared.bounds is not None:
            near = (maximum + compared.bounds[1]) / 2
            above = int((compared.paired.similarity > near).sum())
            said = f"But {above} of {compared.count} are above {near:.3g} by themselves, which the mean hides."
            return said if above else None
        if compared.least_seen is None:
            return "But copies planted among the reconstructions, one in ten, would not surely have been seen."
        if flagged(compared.leakage):
            return (
                "But training records are met more closely than others, which chance does not explain "
                f"({by_chance(compared)}): this measure averages over copies of a few."
            )
        return None


class ReconstructionKind(ClaimKind):
    """What training records look like."""

    claims = Reconstructions
    name = RECONSTRUCTION
    title = "Reconstruction"
    words = "reconstruction"

    def join(
        self, claim: Reconstructions, question: AttackTarget, *, attack: Attack, rng: np.random.Generator, device: str
    ) -> ReconstructionEvidence:
        """Compare reconstructions with the candidates, by the attack's own measure where it fits such records."""
        candidates, included = question.target.candidates, question.included
        measure = attack.similarity if attack.similarity in similarities(candidates.kind) else None
        compared = compare(claim, candidates, included, measure=measure, rng=rng, victims=question.victims)
        return ReconstructionEvidence(compared, Ranking(compared.closest, included, candidates.units))
