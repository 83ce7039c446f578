"""From the words of a plan to the objects that do the work; what does not exist is found here, before training."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, cast, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from attacks.capabilities import Capability
from attacks.protocol import Attack
from attacks.registry import registered_attacks
from auditor.plan.plan import Plan
from auditor.plan.sections import Control, Named, Training
from auditor.reasons import reason
from defenses.architectures import NAMES, Architecture, find_factory
from defenses.augmentation import Augmentation
from defenses.defense import Defense
from defenses.errors import PlanError
from defenses.nadam import Nadam
from defenses.recipe import Precision, Recipe, Schedule
from defenses.sampling import Lots
from defenses.schemes import registered_schemes
from defenses.updates import SGD, Adam, UpdateRule
from reports.parsing import problems
from reports.suggestions import nearest
from reports.untrusted import printable, quoted


def resolve_architecture(plan: Plan, *, allow_code: bool) -> Architecture:
    """Return the network of a plan.

    Raises:
        PlanError: If the name is unknown, or names code that may not be run.
    """
    if plan.model is None:
        raise PlanError("key 'model' is missing: say what network it is")
    name = plan.model.architecture
    if ":" not in name and name not in NAMES:
        raise PlanError(
            f"architecture {quoted(name)} is unknown{nearest(name, list(NAMES))}; or give package.module:factory"
        )
    try:
        find_factory(name, allow_code=allow_code)
    except PlanError:
        raise
    except Exception as error:  # whatever that code does
        raise PlanError(f"architecture {quoted(name)} cannot be imported ({reason(error)})") from error
    return Architecture(name, plan.model.options, allow_code=allow_code)


def resolve_generator(name: str, *, allow_code: bool) -> Callable[..., Any]:
    """Return what the factory of a generator makes: what draws its samples.

    Args:
        name: ``package.module:factory``; the factory takes no arguments.
        allow_code: Whether a plan may name code to run.

    Raises:
        PlanError: If the code may not be run, cannot be found, fails, or makes nothing that can be called.
    """
    what, (module, _, attribute) = f"generator {quoted(name)}", name.partition(":")
    if not module or not attribute:
        raise PlanError(f"{what} names no factory; the form is package.module:factory")
    if not allow_code:
        raise PlanError(f"{what} would run code of that package; give --allow-code if you trust it")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever that code does
        raise PlanError(
            f"{what} cannot be imported ({reason(error)}); the form is package.module:factory, and the package must be "
            "on the Python path"
        ) from error
    if not callable(factory):
        raise PlanError(f"{what} is {type(factory).__name__}; give a factory, which is called without arguments")
    try:
        sample = factory()
    except Exception as error:
        raise PlanError(f"{what} cannot be made: {reason(error)}") from error
    if not callable(sample):
        raise PlanError(
            f"{what} returned {type(sample).__name__}; a factory returns what can be called as sample(count, seed=seed)"
        )
    return cast("Callable[..., Any]", sample)


def resolve_defense(plan: Plan) -> Defense:
    """Return the scheme of a plan; the plan's delta is the scheme's unless it has its own."""
    known = registered_schemes()
    named = plan.scheme or Named(name="none")
    if named.name not in known:
        raise PlanError(f"scheme {quoted(named.name)} is unknown{nearest(named.name, list(known))}")
    given = named.parameters
    if "delta" in _fields(known[named.name]):
        given = {"delta": plan.judged_delta} | given
    found: Defense = _make(known[named.name], given, f"scheme {named.name!r}")
    return found


def resolve_attacks(plan: Plan) -> list[tuple[Attack, bool]]:
    """Return the attacks of a plan with whether they must run: those that it lists, and those that a limit names.

    A plan that lists none gets the usual ones, and those that a limit names.
    """
    known = registered_attacks()
    limited = {limit.attack for limit in plan.limits}
    named = plan.attacks or tuple(Named(name=name) for name, attack in known.items() if attack.usual or name in limited)
    found: list[tuple[Attack, bool]] = []
    for entry in named:
        if entry.name not in known:
            raise PlanError(f"attack {quoted(entry.name)} is unknown{nearest(entry.name, list(known))}")
        kind = known[entry.name]
        given = entry.parameters
        if "shadows" in _fields(kind):
            given = {"shadows": plan.shadows} | given
        found.append((_make(kind, given, f"attack {entry.name!r}"), _must_run(plan, entry.name)))
    names = [attack.name for attack, _ in found]
    if len(set(names)) < len(names):
        raise PlanError(
            f"an attack is listed twice in {names}; each attack runs once, or its result would be picked from"
        )
    for name, part, capability, example in (
        ("gradients", plan.gradients, Capability.GRADIENTS, "idlg"),
        ("generator", plan.generator, Capability.SYNTHETIC, "released_copies"),
    ):
        if part is not None and not any(capability in attack.requires.access for attack, _ in found):
            raise PlanError(f"[{name}] has no effect: list an attack that sees {capability}, such as {example!r}")
    return found


def resolve_recipe(
    training: Training, architecture: Architecture, expected_members: int, *, control: Control | None = None
) -> Recipe:
    """Return the recipe of a plan's training, with the control's overrides if it is for the control."""
    given = training.model_dump()
    if control is not None:
        given |= {name: value for name, value in control.model_dump(exclude={"enabled"}).items() if value is not None}
    optimizer: UpdateRule
    if given["optimizer"] == "sgd":
        optimizer = SGD(momentum=given["momentum"], weight_decay=given["weight_decay"])
    else:
        optimizer = (Nadam if given["optimizer"] == "nadam" else Adam)(weight_decay=given["weight_decay"])
    try:
        return Recipe(
            architecture=architecture,
            lots=Lots(expected_members, given["batch_size"], given["epochs"]),
            learning_rate=given["learning_rate"],
            optimizer=optimizer,
            schedule=Schedule(given["schedule"]),
            precision=Precision(given["precision"]),
            augmentation=Augmentation(flip=given["flip"], shift=given["shift"]),
        )
    except (ValueError, ArithmeticError) as error:
        raise PlanError(f"training: {printable(str(error))}") from error


def parameter_types(scheme: str) -> dict[str, set[type]]:
    """Return what each field of a scheme may be, by name.

    Raises:
        PlanError: If there is no such scheme.
    """
    known = registered_schemes()
    if scheme not in known:
        raise PlanError(f"scheme {quoted(scheme)} is unknown{nearest(scheme, list(known))}")
    hints = get_type_hints(known[scheme])
    return {name: set(get_args(hints[name]) or (hints[name],)) for name in _fields(known[scheme])}


def _must_run(plan: Plan, attack: str) -> bool:
    return bool(plan.attacks) or any(limit.attack == attack for limit in plan.limits)


def parameters_of(thing: Attack | Defense) -> dict[str, Any]:
    """Return the fields of an attack or a scheme, given and defaulted, JSON-ready."""
    return {name: getattr(thing, name) for name in _fields(type(thing))}


def _fields(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _make(kind: type[Any], given: Mapping[str, Any], what: str) -> Any:
    known = _fields(kind)
    hints = get_type_hints(kind)
    read = {}
    for name, value in given.items():
        if name not in known:
            raise PlanError(
                f"{what} has no parameter {quoted(name)}{nearest(name, known) if known else '; it takes none'}"
            )
        try:
            read[name] = TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            raise PlanError(f"{what}: {name} is {quoted(value)}: {problems(error)}") from error
    for field in dataclasses.fields(kind):
        wanted = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if wanted and field.name not in read:
            raise PlanError(f"{what} needs its parameter {field.name!r}: add it to the plan")
    try:
        return kind(**read)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise PlanError(f"{what}: {printable(str(error))}") from error
