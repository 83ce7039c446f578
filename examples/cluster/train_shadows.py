"""Train shadow models of a network on scikit-learn's digits: in this process, in several, or on a Ray cluster.

Run it twice with the same --store and the second run trains nothing. See docs/cluster.md.
"""

import argparse
import sys
import time

import numpy as np
from sklearn.datasets import load_digits

from defenses.architectures import Architecture
from defenses.engine.executors import Executor, InProcess, Processes, RayTasks
from defenses.engine.store import ModelStore
from defenses.engine.training import Job
from defenses.progress import Progress
from defenses.recipe import Recipe
from defenses.records import Image, Records
from defenses.sampling import Lots
from defenses.schemes.none import NoDefense
from defenses.updates import SGD


def main() -> None:
    """Parse the command, train, say how fast."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", choices=["in-process", "processes", "ray"], default="in-process")
    parser.add_argument("--workers", type=int, default=2, help="processes (with --executor processes)")
    parser.add_argument("--address", help="of the Ray cluster; left out, one on this machine is used or started")
    parser.add_argument("--gpus", type=float, default=0, help="share of a GPU that a stack takes (with --executor ray)")
    parser.add_argument("--store", default="shadow-models", help="folder or URL where models are kept")
    parser.add_argument("--models", type=int, default=32)
    parser.add_argument("--width", type=int, default=4, help="models trained together, as one task")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()

    executors: dict[str, Executor] = {
        "in-process": InProcess(),
        "processes": Processes(asked.workers),
        "ray": RayTasks(asked.address, gpus_per_task=asked.gpus),
    }
    digits = load_digits()
    records = Records(
        (digits.data / 16).astype(np.float32).reshape(-1, 1, 8, 8), digits.target.astype(np.int64), 10, Image()
    )
    recipe = Recipe(
        architecture=Architecture("mlp", {"hidden": [64]}),
        lots=Lots(len(records) // 2, 32, asked.epochs),
        learning_rate=0.05,
        optimizer=SGD(0.9),
    )
    included = np.random.default_rng(1).random((asked.models, len(records))) < 0.5
    store = ModelStore(asked.store, executor=executors[asked.executor])

    def show(progress: Progress) -> None:
        print(f"\r{progress.detail}", end="", file=sys.stderr, flush=True)

    began = time.monotonic()
    ensemble = store.train(
        Job(recipe, NoDefense(), records),
        included,
        range(asked.models),
        device=asked.device,
        width=asked.width,
        on_progress=show,
    )
    seconds = time.monotonic() - began
    print(file=sys.stderr)
    print(
        f"{store.trained} models trained and {store.loaded} loaded in {seconds:.1f} s, "
        f"{asked.models / seconds:.1f} models per second, the start of workers included"
    )
    right = ensemble.logits(records.x).argmax(-1) == records.y
    print(f"accuracy on members {right[included].mean():.1%}, on the others {right[~included].mean():.1%}")


if __name__ == "__main__":
    main()
