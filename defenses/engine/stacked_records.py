"""What the models of a stack train on: each scheme's own preparation of each model's records, on the device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from defenses.defense import Job, Prepared
from defenses.errors import TrainingError
from defenses.input_transform import InputTransform
from defenses.randomness import stream
from defenses.records import BoolArray, IntArray, Records, Shape
from defenses.updates import Tensors


@dataclass(frozen=True)
class StackedRecords:
    """Training records of K models, one after the other; models whose scheme leaves the records alone share one copy.

    Attributes:
        x: (N, *shape) on the device.
        y: (N,) labels on the device.
        offsets: (K,) where each model's records begin.
        included: K masks over each model's records, those that it trains on.
        shape: Shape of one record, as the network sees it.
        facts: K mappings, what each preparation made public.
        fronts: K preprocessings that the released models carry, or none at all.
    """

    x: Tensor
    y: Tensor
    offsets: IntArray
    included: tuple[BoolArray, ...]
    shape: Shape
    facts: tuple[Mapping[str, Any], ...]
    fronts: tuple[InputTransform, ...]

    @property
    def stacked_fronts(self) -> Tensors:
        """The values of the fronts, name -> (K, *shape)."""
        if not self.fronts:
            return {}
        states = [front.state_dict() for front in self.fronts]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def of(self, k: int) -> tuple[Tensor, Tensor]:
        """Return records and labels that model `k` trains on."""
        rows = torch.from_numpy(np.flatnonzero(self.included[k]) + self.offsets[k]).to(self.x.device)
        return self.x[rows], self.y[rows]

    def public(self, k: int, records: Records | None) -> tuple[Tensor, Tensor]:
        """Return public records as model `k` sees them, and their labels; none where there are none."""
        if records is None:
            return self.x[:0], self.y[:0]
        x = self.fronts[k].apply_to(records.x) if self.fronts else records.x
        return torch.from_numpy(x).to(self.x), torch.from_numpy(records.y).to(self.y.device)

    def padded(
        self, lots: Sequence[IntArray | None], views: Sequence[IntArray | None], start: int, capacity: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return one micro-batch of every model's lot.

        Args:
            lots: K arrays of record indices, None for a model that takes no step.
            views: K arrays (lot, 3) of augmentations, or None.
            start: Where in each lot the micro-batch begins.
            capacity: Its size B.

        Returns:
            Record indices (K, B), a mask of those that are real, and views (K, B, 3), or (K, B, 0) without any.
        """
        indices = np.repeat(self.offsets[:, None], capacity, axis=1)
        mask = np.zeros(indices.shape, dtype=np.bool_)
        seen = np.zeros((*indices.shape, 0 if all(view is None for view in views) else 3), dtype=np.int64)
        for k, (lot, view) in enumerate(zip(lots, views, strict=True)):
            if lot is None:
                continue
            part = lot[start : start + capacity]
            indices[k, : len(part)] = part + self.offsets[k]
            mask[k, : len(part)] = True
            if view is not None:
                seen[k, : len(part)] = view[start : start + capacity]
        there = [torch.from_numpy(array).to(self.x.device) for array in (indices, mask, seen)]
        return there[0], there[1], there[2]

    def labels(self, k: int, lot: IntArray) -> IntArray:
        """Return the labels of a lot of model `k`."""
        found: IntArray = self.y[torch.from_numpy(lot + self.offsets[k]).to(self.y.device)].cpu().numpy()
        return found


def load_bank(
    job: Job, included: BoolArray, seeds: Sequence[int], *, device: torch.device, dtype: torch.dtype
) -> StackedRecords:
    """Prepare the records of every model.

    Args:
        job: Records and scheme.
        included: (K, n) bool.
        seeds: K seeds.
        device: Where records shall be.
        dtype: Type of the features.

    Raises:
        TrainingError: If the scheme prepares records of different shapes, or preprocesses for a network whose weights
            are given.
    """
    made = [_prepared(job, included[k], seed) for k, seed in enumerate(seeds)]
    shapes = {each.records.shape for each in made}
    fronts = tuple(each.front for each in made if each.front is not None)
    if len(shapes) > 1 or len(fronts) not in (0, len(made)):
        raise TrainingError(f"scheme {job.defense.name!r} prepares records of different shapes: {sorted(shapes)}")
    if fronts and job.initial is not None:
        raise TrainingError(
            f"scheme {job.defense.name!r} puts preprocessing in front of the network, and the job gives weights of a "
            "network without it; leave `initial` out"
        )
    (shape,) = shapes
    parts: list[tuple[np.ndarray[Any, Any], IntArray]] = []
    offsets, masks, end, shared = [], [], 0, -1
    for k, each in enumerate(made):
        if each.front is None and each.records.x is job.records.x:
            if shared < 0:
                shared = end
                parts.append((job.records.x, job.records.y))
                end += len(job.records)
            offsets.append(shared)
            masks.append(included[k])
            continue
        own = each.records
        rows = included[k] if len(own) == included[k].sum() else np.ones(len(own), dtype=np.bool_)
        x = np.zeros((len(rows), *shape), dtype=np.float32)
        y = np.zeros(len(rows), dtype=np.int64)
        x[rows], y[rows] = own.x, own.y
        parts.append((x, y))
        offsets.append(end)
        masks.append(rows)
        end += len(rows)
    x = np.concatenate([part[0] for part in parts]) if len(parts) > 1 else parts[0][0]
    y = np.concatenate([part[1] for part in parts]) if len(parts) > 1 else parts[0][1]
    return StackedRecords(
        torch.from_numpy(np.ascontiguousarray(x)).to(device, dtype),
        torch.from_numpy(np.ascontiguousarray(y)).to(device),
        np.array(offsets, dtype=np.int64),
        tuple(masks),
        shape,
        tuple(dict(each.facts) for each in made),
        fronts,
    )


def _prepared(job: Job, included: BoolArray, seed: int) -> Prepared:
    """Return one model's preparation; records that it leaves alone are the pool itself, not a copy."""
    own = job.records.take(included)
    public = job.public if job.defense.uses_public else None
    found = job.defense.prepare(own, stream(seed, "prepare"), public=public)
    return Prepared(job.records, found.facts) if found.records is own and found.front is None else found
