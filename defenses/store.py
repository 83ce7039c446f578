"""Trained models kept by content: what was trained once is never trained again, and nothing else is ever taken for it.

The key of a model covers the records, who was in, the architecture, every parameter of recipe and scheme, the seed, the
stack it was trained in and the code itself.
"""

import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from defenses.ensemble import Ensemble, concatenate
from defenses.errors import CheckpointError
from defenses.progress import OnProgress, Progress, silent
from defenses.records import BoolArray
from defenses.training import Job, default_width, resolve_device, train


@dataclass
class ModelStore:
    """A folder of trained models, named by their content keys.

    Attributes:
        folder: Where models are kept; made when first needed, readable by its owner only.
        trained: Models trained through this store so far.
        loaded: Models found in the folder so far.
    """

    folder: Path
    trained: int = 0
    loaded: int = 0

    def train(
        self,
        job: Job,
        included: BoolArray,
        seeds: Sequence[int],
        *,
        device: str = "auto",
        width: int | None = None,
        stage: str = "training models",
        on_progress: OnProgress = silent,
    ) -> Ensemble:
        """Return the K models, training only those that are not in the folder.

        A stack is the unit of work: it is trained whole, and its models are written as soon as it is done.
        Arguments and errors as in `defenses.training.train`; `stage` is what progress is called.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        place = resolve_device(device)
        wide = width or default_width(job, place)
        parts: list[Ensemble] = []
        for start in range(0, len(seeds), wide):
            block = slice(start, min(start + wide, len(seeds)))
            keys = self._keys(job, included[block], seeds[block], place.type)
            part = self._load(keys)
            if part is None:

                def report(progress: Progress, first: int = start, count: int = len(keys)) -> None:
                    done = first + progress.done / progress.total * count
                    on_progress(Progress(stage, done, len(seeds), f"{first} of {len(seeds)} models done"))

                part = train(job, included[block], seeds[block], device=device, width=wide, on_progress=report)
                for k, key in enumerate(keys):
                    part.save(self._path(key), k)
                self.trained += len(keys)
            else:
                self.loaded += len(keys)
            parts.append(part)
            on_progress(Progress(stage, block.stop, len(seeds), f"{block.stop} of {len(seeds)} models done"))
        return concatenate(parts)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _load(self, keys: Sequence[str]) -> Ensemble | None:
        if not all(self._path(key).exists() for key in keys):
            return None
        try:
            return concatenate([Ensemble.load(self._path(key)) for key in keys])
        except CheckpointError:
            return None  # a damaged file is as good as none: the stack is trained again and the file replaced

    def _keys(self, job: Job, included: BoolArray, seeds: Sequence[int], device: str) -> list[str]:
        shared = {
            "recipe": _plain(job.recipe) | {"architecture": job.recipe.architecture.key},
            "defense": [type(job.defense).__module__, type(job.defense).__qualname__, _plain(job.defense)],
            "records": job.records.digest,
            "device": device,
            "torch": torch.__version__,
            "code": code_digest(job.recipe.architecture.name, type(job.defense).__module__),
        }
        members = [
            [hashlib.sha256(row.tobytes()).hexdigest(), str(seed)] for row, seed in zip(included, seeds, strict=True)
        ]
        stack = hashlib.sha256(json.dumps([shared, members], sort_keys=True).encode()).hexdigest()
        return [hashlib.sha256(f"{stack} {k}".encode()).hexdigest()[:40] for k in range(len(seeds))]


def _plain(value: object) -> dict[str, object]:
    """Return a dataclass as JSON-ready data, types included, so that SGD() and Adam() never look alike."""
    fields: dict[str, object] = asdict(value)  # type: ignore[call-overload]
    types = {name: type(getattr(value, name)).__qualname__ for name in fields}
    return {"fields": json.loads(json.dumps(fields, default=str, sort_keys=True)), "types": types}


@functools.cache
def code_digest(architecture: str = "", scheme: str = __name__) -> str:
    """Return a digest of the code that trains: this package, and the modules of a network or scheme from elsewhere.

    Args:
        architecture: Name of the network; ``package.module:factory`` adds that module.
        scheme: Module of the scheme.
    """
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in sorted(here.rglob("*.py")):
        digest.update(file.relative_to(here).as_posix().encode() + b"\0" + file.read_bytes())
    modules = [architecture.partition(":")[0]] if ":" in architecture else []
    for module in (*modules, scheme):
        digest.update(inspect.getsource(importlib.import_module(module)).encode())
    return digest.hexdigest()
