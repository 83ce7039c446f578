"""The code under test: found by name, asked for its signature, and called so that its faults are told from ours."""

import contextlib
import copy
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from defenses.errors import AuditError, PlanError
from reports.suggestions import nearest

STEP = "train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, expected_batch_size)"
TRAINING = (
    "train(model, x, y, *, sampling_probability, expected_batch_size, steps, learning_rate, max_grad_norm, "
    "noise_multiplier)"
)
_STEP_DIALS = ("max_grad_norm", "noise_multiplier", "expected_batch_size")
_TRAINING_DIALS = ("sampling_probability", "expected_batch_size", "steps", "learning_rate", *_STEP_DIALS[:2])

# Stands for no noise: code that divides by the noise multiplier, or refuses 0, still runs its usual way.
QUIET = 1e-6
_LONGEST = 160


class UserCodeError(AuditError):
    """The code under test raised an exception, or left what cannot be measured."""

    exit_code = 4  # not a mistake in the command


@dataclass(frozen=True)
class StepSettings:
    """The arguments of one call of the code under test.

    Attributes:
        max_grad_norm: Clipping norm.
        noise_multiplier: Noise over the clipping norm.
        expected_batch_size: What sums are to be divided by.
        sampling_probability: Chance of each record to be in a lot; 1 puts all of them in.
        steps: Number of steps.
        learning_rate: Of plain SGD.
    """

    max_grad_norm: float = 1.0
    noise_multiplier: float = QUIET
    expected_batch_size: int = 8
    sampling_probability: float = 1.0
    steps: int = 1
    learning_rate: float = 1.0

    def quiet(self) -> "StepSettings":
        """Return the same call without noise."""
        return replace(self, noise_multiplier=QUIET)


@dataclass(frozen=True)
class Implementation:
    """A step or a whole training that somebody wrote.

    Attributes:
        name: What it was asked for as.
        function: See `STEP` and `TRAINING`; changes the model in place (a training may return one, or a state dict).
        trains: Whether it is a whole training, which draws its own lots.
    """

    name: str
    function: Callable[..., Any]
    trains: bool

    def step(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, dials: StepSettings
    ) -> None:
        """Make one step with the lot (x, y); raises UserCodeError if the code raises."""
        given = {name: getattr(dials, name) for name in _STEP_DIALS}
        with _blamed(self.name):
            self.function(model, optimizer, x, y, **given)

    def train(self, model: nn.Module, x: Tensor, y: Tensor, dials: StepSettings) -> Mapping[str, Tensor]:
        """Train on the records (x, y) and return the state of the result; raises UserCodeError if the code raises."""
        given = {name: getattr(dials, name) for name in _TRAINING_DIALS}
        with _blamed(self.name):
            returned = self.function(model, x, y, **given)
        if isinstance(returned, nn.Module):
            return returned.state_dict()
        return returned if isinstance(returned, Mapping) else model.state_dict()


def find_implementation(name: str) -> Implementation:
    """Import PACKAGE.MODULE:FUNCTION and say what it is by the names of its parameters.

    Args:
        name: Importable name; a parameter called `optimizer` makes it a step, one called `steps` a training.

    Raises:
        PlanError: If it cannot be found, or does not take what it will be called with.
        UserCodeError: If the module raises while it is imported.

    Examples:
        >>> find_implementation("mypackage.training:train_step").trains  # doctest: +SKIP
        False
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise PlanError(f"{name!r} does not name a function; give PACKAGE.MODULE:FUNCTION, for example mine.dp:train")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] != error.name.split(".")[0]:
            raise UserCodeError(f"{module_name} cannot be imported: {error}") from error
        raise PlanError(
            f"there is no module {module_name!r}; run this in the folder that holds the package, or install it"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, attribute, None)
    if function is None:
        known = [each for each, value in vars(module).items() if callable(value)]
        hint = f"{nearest(attribute, known)}" if known else ""
        raise PlanError(f"module {module_name!r} has no {attribute!r}{hint}")
    return check_implementation(name, function)


def check_implementation(name: str, function: object) -> Implementation:
    """Return what a function is, or raise PlanError if it does not take what it will be called with."""
    wanted = f"write a function of one of these forms around your code:\n  {STEP}\n  {TRAINING}"
    if not callable(function):
        raise PlanError(f"{name} is a {type(function).__name__}, not a function; {wanted}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise PlanError(f"the parameters of {name} cannot be read; {wanted}") from error
    trains = "optimizer" not in signature.parameters
    positional = ("model", "x", "y") if trains else ("model", "optimizer", "x", "y")
    dials = _TRAINING_DIALS if trains else _STEP_DIALS
    try:
        signature.bind(*positional, **dict.fromkeys(dials))
    except TypeError as error:
        raise PlanError(f"{name}{signature} does not fit ({error}); {wanted}") from error
    return Implementation(name, function, trains)


def copied(model: nn.Module) -> nn.Module:
    """Return a model of its own for a call that will change it, in training mode."""
    return copy.deepcopy(model).train()


@contextlib.contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Turn what the code raises into UserCodeError; keep its warnings quiet and its prints off standard output."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    except (Exception, SystemExit) as error:  # code that ends the process must not end it with a verdict
        place = _place(error)
        said = " ".join(str(error).split())
        said = said if len(said) <= _LONGEST else said[:_LONGEST] + " ..."
        raise UserCodeError(f"{name} raised {type(error).__name__}{place}: {said}") from error


def _place(error: BaseException) -> str:
    """Return the deepest line that is not in a library, so that the author finds it."""
    found = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "site-packages" not in file and file != __file__ and not file.startswith("<"):
            found = f" in {trace.tb_frame.f_code.co_name}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return found
