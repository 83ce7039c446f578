"""A record that is kept as a file of its own: one way to write it, one way to read it back."""

import json
from typing import ClassVar, Self

from pydantic import ValidationError

from reports.errors import ReportError
from reports.estimate import Strict


class Document(Strict):
    """Base of the records that are files.

    Class attributes:
        given_by: The file and the command that writes it, for who gave another one.
    """

    given_by: ClassVar[str]

    def to_json(self) -> str:
        """Return the record as JSON text: sorted keys, two spaces, a final newline, no NaN."""
        plain = json.loads(self.model_dump_json())  # infinities become strings on this way only
        return json.dumps(plain, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a record back; raises `reports.errors.ReportError` for one that is malformed."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the record"
            raise ReportError(f"{place}: {first['msg']}; give a {cls.given_by}") from None
