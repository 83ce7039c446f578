"""The base of every part of a record, and the one way in which a number is given: with its interval, or a reason."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """Base of every part of the record: frozen, no unknown keys, infinities as strings."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings", allow_inf_nan=True)

    @model_validator(mode="after")
    def _no_nan(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            for number in value if isinstance(value, list) else (value,):
                if isinstance(number, float) and number != number:
                    raise ValueError(f"{name} is NaN, which is not a value; leave it out or give a reason")
        return self


class Estimate(Strict):
    """A number with its interval, or a reason why there is none.

    `level` is the confidence of this one interval; where several findings are judged together it is already the
    corrected, higher one. `n` counts the independent units behind it and `unit` names them.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: Share | None = None
    method: str
    n: Count | None = None
    unit: str = "record"
    reason: str | None = None

    @model_validator(mode="after")
    def _number_or_reason(self) -> Self:
        if self.value is None and self.reason is None:
            raise ValueError("an estimate without a value needs a reason")
        if (
            self.value is not None
            and self.low is not None
            and self.high is not None
            and not (self.low <= self.value <= self.high)
        ):
            raise ValueError(f"value {self.value} lies outside its interval [{self.low}, {self.high}]")
        return self
