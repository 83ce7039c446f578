"""A record that is kept as a file of its own: one way to write it, one way to read it back."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from reports.errors import ReportError
from reports.parsing import parse_json, problems, read_json
from reports.records.estimate import Strict
from reports.untrusted import guarded


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
    def read(cls, path: Path) -> Self:
        """Read a record's file of at most 50 MB; raises `reports.errors.ReportError` as `from_json` does."""
        return cls._checked(read_json(path, error=ReportError))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a record back; raises `reports.errors.ReportError` for one that is malformed."""
        return cls._checked(parse_json(text, what=f"the {cls.given_by.partition(' ')[0]}", error=ReportError))

    @classmethod
    def _checked(cls, found: Any) -> Self:
        """Return the record that plain content is; subclasses look at its version first."""
        try:
            with guarded("the record", error=ReportError, remedy=f"give a {cls.given_by}", keep=ValidationError):
                return cls.model_validate(found)
        except ValidationError as error:
            raise ReportError(f"{problems(error)}; give a {cls.given_by}") from None
