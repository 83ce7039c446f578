"""Label inference from the gradient of a single record, against models trained on 10,000 to 30,000 MNIST images.

The setting of the paper on deep differential privacy with DCGAN feedback: 10, 25 and 50 epochs, noise multipliers 8, 4
and 2 at clipping norm 4, against no protection; guessing is right in 10%. The gradient of one training image at the
trained network is released as a lot of its own, with all of the noise, or with that of a lot shared by its records, as
if nobody added up. Data are searched for in the folder that AUDITOR_DATA names; a row that is done is kept.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.harness import Settings, Style, kept, note, table

NAME = "label_inference"


@dataclass(frozen=True)
class Sizes:
    """What is trained and attacked."""

    records: tuple[int, ...] = (10_000, 20_000, 30_000)
    epochs: tuple[int, ...] = (10, 25, 50)
    noises: tuple[float, ...] = (0.0, 2.0, 4.0, 8.0)
    clip: float = 4.0
    batch_size: int = 250
    victims: int = 1_000


QUICK = Sizes(records=(300,), epochs=(1,), noises=(0.0, 2.0), batch_size=50, victims=20)


def run(settings: Settings) -> dict[str, Any]:
    sizes = QUICK if settings.quick else Sizes()
    rows = []
    for records in sizes.records:
        for epochs in sizes.epochs:
            for noise in sizes.noises:
                note(f"  {records:,} records, {epochs} epochs, noise {noise:g}")
                facts = [NAME, records, epochs, noise, sizes.clip, sizes.batch_size, sizes.victims, settings.device]
                rows.append(kept(facts, lambda r=records, e=epochs, n=noise: _row(r, e, n, sizes, settings.device)))
    return {"settings": asdict(sizes) | {"quick": settings.quick}, "unit": "share of right guesses", "rows": rows}


def show(result: dict[str, Any], style: Style) -> str:
    def share(name: str) -> Callable[[Any], Any]:
        return lambda row: f"{row[name][0]:.1%} ({row[name][1]:.1%}-{row[name][2]:.1%})"

    columns: dict[str, str | Callable[[Any], Any]] = {
        "records": "records",
        "epochs": "epochs",
        "noise multiplier": "noise",
        "test accuracy": lambda row: f"{row['accuracy']:.1%}",
        "one record, noise of a lot": share("alone"),
        "one record of a lot": share("within"),
    }
    return table(result["rows"], columns, style)


def _row(records: int, epochs: int, noise: float, sizes: Sizes, device: str) -> dict[str, Any]:
    import os
    from pathlib import Path

    import numpy as np

    from auditor.datasets import load
    from auditor.reproductions.p2_models import inferred_labels
    from defenses.architectures import Architecture
    from defenses.defense import Defense
    from defenses.engine.training import Job, train
    from defenses.ensemble import module_logits
    from defenses.gradients import ClippedGaussian
    from defenses.recipe import Recipe
    from defenses.sampling import Lots
    from defenses.schemes.dp_sgd import DPSGD
    from defenses.schemes.none import NoDefense
    from defenses.updates import SGD

    folder = Path(os.environ["AUDITOR_DATA"])
    pool, test = load("mnist", data_dir=folder), load("mnist", split="test", data_dir=folder)
    chosen = pool.take(np.random.default_rng(0).permutation(len(pool))[:records])
    scheme: Defense = NoDefense() if noise == 0 else DPSGD(noise_multiplier=noise, max_grad_norm=sizes.clip)
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": [60]}),
        lots=Lots(records, sizes.batch_size, epochs),
        learning_rate=0.1 if noise == 0 else 0.05,
        optimizer=SGD(0.9 if noise == 0 else 0.0),
    )
    model = train(Job(recipe, scheme, chosen), np.ones((1, records), bool), [1], device=device).one(0).to(device)
    said = module_logits(model, test.x, device=device).argmax(1)
    victims = chosen.x[: sizes.victims], chosen.y[: sizes.victims]
    found: dict[str, Any] = {"records": records, "epochs": epochs, "noise": noise}
    found["accuracy"] = float((said == test.y).mean())
    for name, share in (("alone", 1.0), ("within", 1 / sizes.batch_size)):
        rule = None if noise == 0 else ClippedGaussian(sizes.clip, noise * share)
        measured = inferred_labels(model, *victims, rule, seed=1, device=device)
        found[name] = [measured.value, measured.low, measured.high]
    return found
