"""Every kind of target: each file of `auditor.targets` that defines one, and entry points of installed packages."""

import functools
from typing import Annotated, Any, TypeVar, Union

from pydantic import BeforeValidator, Discriminator, Tag, TypeAdapter

from defenses.plugins import classes_in, load_plugins

ENTRY_POINTS = "privacy_auditor.targets"
FOLDER = "auditor.targets"

Kind = TypeVar("Kind")


@functools.cache
def discovered(base: type[Kind]) -> dict[str, type[Kind]]:
    """Return every kind of target by its name, which is the key of its table in plans.

    Args:
        base: What each is a concrete subclass of; `auditor.plan.plan.TargetPlan`.
    """
    found: list[type[Kind]] = classes_in(FOLDER, base)
    found += load_plugins(ENTRY_POINTS, base, taken={_name(kind) for kind in found})
    return {_name(kind): kind for kind in sorted(found, key=_name)}


def union_of(kinds: dict[str, type[Kind]]) -> TypeAdapter[Kind]:
    """Return the discriminated union of kinds of targets; it reads a pair of the name and the table."""
    members = tuple(Annotated[kind, BeforeValidator(_table), Tag(name)] for name, kind in kinds.items())
    union: Any = Annotated[Union[members], Discriminator(_kind)]  # noqa: UP007  # made at run time
    return TypeAdapter(union)


def _kind(named: tuple[str, Any]) -> str:
    return named[0]


def _table(named: tuple[str, Any]) -> Any:
    return named[1]


def _name(kind: type) -> str:
    name: str = kind.name  # type: ignore[attr-defined]  # every target plan has one
    return name
