"""Canaries nearest to the decision boundary: true records that a quick reference model is least sure of."""

from dataclasses import dataclass

import numpy as np

from auditor.canaries.canary_type import CanaryType, Drawn
from defenses.architectures import Architecture
from defenses.engine.training import Job, train
from defenses.errors import DataError
from defenses.progress import OnProgress, silent
from defenses.randomness import derive, stream
from defenses.recipe import Recipe
from defenses.records import Records
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import Adam


@dataclass(frozen=True)
class NearestToBoundary(CanaryType):
    """The records with the smallest margin between the two likeliest classes, under their own labels.

    Two small networks are trained here, each on one half of (at most `most` of) the records, and each record's margin
    is taken from the one that has not seen it. The record leaves the data and comes back only if its coin says so: of
    all kinds this one changes the data least, and shows least.

    Attributes:
        hidden: Width of the reference networks' one hidden layer.
        epochs: How long they are trained.
        most: Most records to choose from; beyond that a random part of them.

    Source: distance to the boundary as a sign of membership is Choquette-Choo et al. (2021); to choose canaries by the
    margin, as a stand-in for that distance, is ours.
    """

    name = "nearest_to_boundary"
    summary = "true records that a quick reference network, trained here without them, is least sure of"
    paper = "after Choquette-Choo et al. 2021"

    hidden: int = 64
    epochs: int = 20
    most: int = 20_000

    def draw(
        self, records: Records, count: int, *, rng: np.random.Generator, on_progress: OnProgress = silent
    ) -> Drawn:
        """Rank records by margin; see `CanaryType.draw`. The reference networks depend on the data alone."""
        if records.classes < 2 or len(records) < 4:
            raise DataError(
                f"{records.name} has {len(records)} records of {records.classes} class(es), so there is no boundary "
                "to be near to; use random_noise"
            )
        root = derive(0, "reference", records.digest)
        pool = np.sort(stream(root, "pool").permutation(len(records))[: max(self.most, count)])
        chosen = records.take(pool)
        half = stream(root, "halves").permutation(len(pool)) < len(pool) // 2
        lots = Lots(max(1, len(pool) // 2), max(1, min(64, len(pool) // 2)), self.epochs)
        recipe = Recipe(
            architecture=Architecture("mlp", {"hidden": [self.hidden]}),
            lots=lots,
            learning_rate=0.003,
            optimizer=Adam(),
        )
        seeds = [derive(root, "network", side) for side in (0, 1)]
        job = Job(recipe, NoDefense(), chosen)
        logits = train(job, np.stack([half, ~half]), seeds, device="cpu", on_progress=on_progress).logits(chosen.x)
        unseen = np.where(half[:, None], logits[1], logits[0])
        likeliest = np.sort(unseen, axis=1)
        order = pool[np.argsort(likeliest[:, -1] - likeliest[:, -2], kind="stable")][:count]
        return Drawn(records.x[order], records.y[order], order)
