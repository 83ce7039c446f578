"""Reconstructions to look at, beside the records that they are most similar to."""

import base64
import io
from collections.abc import Sequence

import numpy as np

from attacks.protocol import Reconstructions
from auditor.evidence.reconstruction import ReconstructionEvidence
from auditor.evidence.run_attack import Evidence
from defenses.records import FloatArray, Image, Records, Table
from reports.records.gallery import GalleryItem, Picture

SHOWN = 8


def gallery(evidence: Sequence[Evidence], *, synthetic: bool) -> list[GalleryItem]:
    """Return the reconstructions of each attack that are most similar to training records.

    Args:
        evidence: What came of attacks; those that reconstructed nothing are passed over.
        synthetic: Whether the records in question are drawn canaries rather than private.
    """
    return [item for entry in evidence for item in _items(entry, synthetic=synthetic)]


def _items(entry: Evidence, *, synthetic: bool) -> list[GalleryItem]:
    joined, claim, records = entry.joined, entry.claim, entry.question.target.candidates
    if not isinstance(joined, ReconstructionEvidence) or not isinstance(claim, Reconstructions):
        return []
    found = joined.compared
    known = found.inside if found.paired is None else found.paired
    items = []
    for row in np.argsort(-known.similarity, kind="stable")[:SHOWN]:
        items.append(
            GalleryItem(
                attack=entry.attack.name,
                synthetic=synthetic,
                measure=found.measure,
                reconstruction=picture(claim.x[row], records),
                training=picture(records.x[known.record[row]], records),
                similarity_training=float(known.similarity[row]),
                holdout=picture(records.x[found.outside.record[row]], records),
                similarity_holdout=float(found.outside.similarity[row]),
            )
        )
    return items


def picture(record: FloatArray, like: Records) -> Picture:
    """Return one record as something to look at: a PNG of an image, or the columns of a row."""
    if isinstance(like.kind, Image):
        return Picture(png=_png(record, like.kind))
    return Picture(fields=_fields(record, like.kind))


def _png(image: FloatArray, kind: Image) -> str:
    from PIL import Image as Pillow

    scaled = np.clip((image - kind.low) / (kind.high - kind.low), 0, 1)
    pixels = (255 * scaled).round().astype(np.uint8)
    if len(pixels) in (1, 3):
        drawn = Pillow.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
    else:  # no colours that a picture could have
        drawn = Pillow.fromarray(pixels.mean(axis=0).astype(np.uint8))
    content = io.BytesIO()
    drawn.save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def _fields(row: FloatArray, table: Table) -> dict[str, str]:
    found = {}
    for column in table.columns:
        block = row[column.start : column.start + column.width]
        if column.categories:
            found[column.name] = column.categories[int(block.argmax())]
        else:
            found[column.name] = f"{column.low + float(block[0]) * (column.high - column.low):.4g}"
    return found
