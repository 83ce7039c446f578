"""Reconstructions beside the records that they are most like, for people to look at."""

from reports.records.estimate import Strict


class Picture(Strict):
    """One record to look at: `png` is base64 of a PNG file for an image, `fields` name and value of each column."""

    png: str | None = None
    fields: dict[str, str] = {}


class GalleryItem(Strict):
    """A reconstruction beside the records that it is most similar to.

    `synthetic` says that no private record is shown: what was attacked is a drawn canary. `training` is the record that
    it was made of where that is known, else the most similar training record.
    """

    attack: str
    synthetic: bool
    measure: str
    reconstruction: Picture
    training: Picture
    similarity_training: float
    holdout: Picture | None = None
    similarity_holdout: float | None = None
