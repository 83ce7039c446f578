"""Trained models kept by content: what was trained once is never trained again, and nothing else is ever taken for it.

The key of a model covers the records, who was in, the architecture, every parameter of recipe and scheme, the seed, the
stack it was trained in and the code itself.
"""

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from defenses.authentication import Authenticator, user_authenticator
from defenses.engine.code_digest import digest_of_training
from defenses.engine.executors import Executor
from defenses.engine.layout import Layout, choose_layout, layout_key
from defenses.engine.storage import Storage, open_storage
from defenses.engine.training import Job, resolve_device, train
from defenses.ensemble import Ensemble, concatenate
from defenses.errors import CheckpointError, TrainingError
from defenses.progress import OnProgress, Progress, silent
from defenses.records import BoolArray


@dataclass
class ModelStore:
    """A place for trained models, named by their content keys.

    Attributes:
        folder: Where models are kept: a path (made when first needed, readable by its owner only), or a URL that fsspec
            reaches. Workers write there themselves: those of other processes need a path or an object store, those of
            other machines a path that all of them see, or an object store.
        trained: Models trained through this store so far.
        loaded: Models found in the folder so far.
        executor: Where stacks are trained; None chooses by measuring (`defenses.engine.layout`).
        authenticator: Seals what is kept; a model that another one sealed is trained again. None takes the user's own.

    Examples:
        >>> store = ModelStore("s3://bucket/models", executor=RayTasks("auto"))     # doctest: +SKIP
        >>> store.train(job, included, seeds, width=4)                              # doctest: +SKIP
    """

    folder: Path | str
    trained: int = 0
    loaded: int = 0
    executor: Executor | None = None
    authenticator: Authenticator | None = None

    @property
    def storage(self) -> Storage:
        """Where models are kept."""
        return open_storage(self.folder, self.authenticator or user_authenticator())

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
        Arguments and errors as in `defenses.engine.training.train`; `stage` is what progress is called.
        """
        storage = self.storage
        place = resolve_device(device)
        layout = self.layout(job, len(seeds), place, width=width)
        wide, executor = layout.width, self.executor or layout.executor
        blocks = []
        for start in range(0, len(seeds), wide):
            rows, drawn = included[start : start + wide], seeds[start : start + wide]
            blocks.append(_Block(_keys(job, rows, drawn, place.type), rows, drawn))
        parts: dict[tuple[str, ...], Ensemble] = {}
        examples = job.recipe.lots.epochs * float(included.sum()) / max(len(seeds), 1)
        began, found = time.monotonic(), self.trained

        def report(within: float = 0.0) -> None:
            done = sum(len(block.keys) for block in blocks if block.keys in parts)
            rate = (self.trained - found + within) * examples / max(time.monotonic() - began, 1e-9)
            speed = f", {rate:,.0f} examples/s" if rate else ""
            on_progress(Progress(stage, done + within, len(seeds), f"{done} of {len(seeds)} models done{speed}"))

        for block in blocks:
            if (part := _load(storage, job, block.keys)) is not None:
                parts[block.keys] = part
                report()
        missing = list({block.keys: block for block in blocks if block.keys not in parts}.values())
        self.loaded += len(seeds) - sum(len(block.keys) for block in missing)

        def report_block(index: int, progress: Progress) -> None:
            report(progress.done / progress.total * len(missing[index].keys))

        function = functools.partial(_train_block, job, storage, str(place), layout)
        with contextlib.closing(executor.run(function, missing, on_progress=report_block)) as results:
            for _, keys in results:
                part = _load(storage, job, keys)
                if part is None:
                    raise TrainingError(
                        f"models were trained but are not in {self.folder}: what the workers write is not seen from "
                        "here; name a folder that all machines share, or an object store"
                    )
                parts[keys] = part
                self.trained += len(keys)
                report()
        return concatenate([parts[block.keys] for block in blocks])

    def layout(self, job: Job, models: int, device: torch.device, *, width: int | None = None) -> Layout:
        """Return how the training of so many models is laid out.

        What was measured once is kept beside the models, so that a run that is taken up again goes on as it began. A
        given width is taken as it is, in this process and uncompiled.
        """
        if width is not None:
            return Layout(width, 1, torch.get_num_threads(), compiled=False)
        storage, name = self.storage, f"{layout_key(job, models, device)}.layout"
        kept = storage.read(name)
        if kept is not None:
            return Layout.from_json(kept.decode())
        chosen = choose_layout(job, models, device)
        storage.write(chosen.to_json().encode(), name)
        return chosen


@dataclass(frozen=True)
class _Block:
    """A stack to train.

    Attributes:
        keys: Content keys of its models.
        included: (K, n) bool: who is in which.
        seeds: K seeds.
    """

    keys: tuple[str, ...]
    included: BoolArray
    seeds: Sequence[int]


def _train_block(
    job: Job, storage: Storage, device: str, layout: Layout, block: _Block, on_progress: OnProgress
) -> tuple[str, ...]:
    """Train a stack, wherever this runs, and leave its models in the storage; only their keys are returned."""
    try:
        keys = _keys(job, block.included, block.seeds, torch.device(device).type)
    except ImportError as error:
        raise TrainingError(f"a worker cannot import what it shall train ({error}); install it there too") from error
    if keys != block.keys:
        raise TrainingError(
            "a worker's code or torch differs from the caller's, so it would train other models than were asked for; "
            "install the same versions everywhere, keep networks and schemes in modules (not in the script that runs), "
            "and do not edit code during a run"
        )
    part = train(
        job,
        block.included,
        block.seeds,
        device=device,
        width=layout.width,
        compiled=layout.compiled,
        on_progress=on_progress,
    )
    for k, key in enumerate(keys):
        storage.write(part.to_bytes(k), _name(key))
    return keys


def _name(key: str) -> str:
    return f"{key}.model"


def _load(storage: Storage, job: Job, keys: Sequence[str]) -> Ensemble | None:
    """Return the models of a stack, or None unless all of them are there and whole."""
    found = []
    for key in keys:
        content = storage.read(_name(key))
        if content is None:
            return None
        try:
            found.append(model_of(job, content))
        except CheckpointError:
            return None  # as good as none: it is trained again and replaced
    return concatenate(found)


def model_of(job: Job, content: bytes) -> Ensemble:
    """Return a kept model of a job; raises `CheckpointError` if the bytes hold another network than the job's."""
    architecture, records = job.recipe.architecture, job.records
    return Ensemble.from_bytes(content, architecture=architecture, shape=records.shape, classes=records.classes)


def digest_of_job(job: Job, device: str) -> str:
    """Return SHA-256 (hex) of everything that a training depends on, but for who is in and the seeds.

    Args:
        job: Records, recipe and scheme.
        device: Type of the device, "cpu" or "cuda".
    """
    shared = {
        "recipe": _plain(job.recipe) | {"architecture": job.recipe.architecture.key},
        "defense": [type(job.defense).__module__, type(job.defense).__qualname__, _plain(job.defense)],
        "records": job.records.digest,
        "initial": None if job.initial is None else _weights_digest(job.initial),
        "public": job.public.digest if job.public is not None and job.defense.uses_public else None,
        "device": device,
        "torch": torch.__version__,
        "code": digest_of_training(job.recipe.architecture.module, type(job.defense).__module__),
    }
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()


def _keys(job: Job, included: BoolArray, seeds: Sequence[int], device: str) -> tuple[str, ...]:
    shared = digest_of_job(job, device)
    members = [
        [hashlib.sha256(row.tobytes()).hexdigest(), str(seed)] for row, seed in zip(included, seeds, strict=True)
    ]
    stack = hashlib.sha256(json.dumps([shared, members], sort_keys=True).encode()).hexdigest()
    return tuple(hashlib.sha256(f"{stack} {k}".encode()).hexdigest()[:40] for k in range(len(seeds)))


def _plain(value: object) -> dict[str, object]:
    """Return a dataclass as JSON-ready data, types included, so that SGD() and Adam() never look alike."""
    fields: dict[str, object] = asdict(value)  # type: ignore[call-overload]
    types = {name: type(getattr(value, name)).__qualname__ for name in fields}
    fields.pop("architecture", None)  # its key stands for it
    return {"fields": json.loads(json.dumps(fields, default=str, sort_keys=True)), "types": types}


def _weights_digest(model: Ensemble) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.parameters.items()):
        digest.update(repr((name, value.shape, value.dtype)).encode() + value.contiguous().numpy().tobytes())
    return digest.hexdigest()
