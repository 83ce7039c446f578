"""`auditor debug-dp`: the command, its words and its JSON; what it imports at the top is light."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from auditor.cli.errors import Debug, Quiet, guarded
from auditor.cli.terminal import say

if TYPE_CHECKING:
    from auditor.debug_dp.battery import Battery

EPILOG = (
    "Exit codes: 0 no invariant failed, which is no proof; 1 an invariant fails; 2 usage error; 3 a check could not "
    "tell; 4 your code crashed. This command runs the code that it names: name only code that you trust."
)


def debug_dp(
    function: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE.MODULE:FUNCTION",
            help="Your code, which is run: train_step(model, optimizer, x, y, *, max_grad_norm, noise_multiplier, "
            "expected_batch_size), or train(model, x, y, *, sampling_probability, expected_batch_size, steps, "
            "learning_rate, max_grad_norm, noise_multiplier). It changes the model in place.",
        ),
    ],
    budget: Annotated[
        float, typer.Option("--budget", min=1.0, help="Seconds; repeated runs fill what checks leave.")
    ] = 100.0,
    runs: Annotated[int, typer.Option("--runs", min=1, help="The most runs with, and without, the canary.")] = 400,
    records: Annotated[int, typer.Option("--records", help="Repeated runs: nominal number of records.")] = 64,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Repeated runs: expected size of a lot.")] = 32,
    steps: Annotated[int, typer.Option("--steps", help="Repeated runs: number of steps.")] = 1,
    noise_multiplier: Annotated[float, typer.Option("--noise-multiplier", help="Repeated runs: noise.")] = 4.0,
    delta: Annotated[float, typer.Option("--delta", help="At which epsilon is claimed and shown.")] = 1e-5,
    only: Annotated[list[str] | None, typer.Option("--only", help="Run this check alone; may be repeated.")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="Leave this check out; may be repeated.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results here.")] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Run a battery of checks against your own DP-SGD and say which invariant fails (under two minutes)."""
    with guarded(debug=debug, stopped="Nothing is kept."):
        from auditor.cli.progress import shown_progress
        from auditor.debug_dp.battery import run_battery
        from auditor.debug_dp.claim import Claim
        from auditor.debug_dp.implementation import find_implementation
        from auditor.files.result_files import write_whole
        from defenses.errors import PlanError

        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does, so that a package lying here is found
        implementation = find_implementation(function)
        try:
            claim = Claim(
                records=records,
                expected_batch_size=batch_size,
                steps=steps,
                noise_multiplier=noise_multiplier,
                delta=delta,
            )
        except ValueError as error:
            raise PlanError(str(error)) from error
        with shown_progress(quiet=quiet) as on_progress:
            found = run_battery(
                implementation,
                claim,
                budget=budget,
                runs=runs,
                only=only or (),
                skip=skip or (),
                on_progress=on_progress,
            )
        if json_file is not None:
            write_whole(json_file, json.dumps(as_json(found), indent=2, allow_nan=False) + "\n")
    say(as_text(found))
    raise typer.Exit(found.exit_code)


def as_text(found: "Battery") -> str:
    """Return what people read: a line per check, and what follows."""
    from auditor.debug_dp.battery import Status

    kind = "training" if found.implementation.trains else "step"
    lines = [f"{found.implementation.name}, a {kind}", ""]
    for result in found.results:
        lines.append(f"{result.status.value.upper():<15}{result.title} [{result.name}]")
        lines.append(f"{'':<15}{result.sentence}.")
        if result.status is Status.VIOLATED and result.bound is not None and result.bound.lower > found.claim.epsilon:
            lines.append(
                f"{'':<15}Epsilon {result.bound.kind.value}: at least {result.bound.lower:.3g} where a run is priced "
                f"at {found.claim.epsilon:.3g} (delta {found.claim.delta:g}; {result.bound.method})."
            )
    lines.append("")
    if found.violated:
        names = ", ".join(result.name for result in found.violated)
        lines.append(
            f"VIOLATED: {len(found.violated)} of {len(found.results)} checks find a failing invariant: {names}."
        )
    elif found.exit_code:
        lines.append("NOT DECIDED: no invariant failed, but not every check could tell.")
    else:
        lines.append("NO INVARIANT FAILED: that refutes nothing and proves nothing; see what was tried above.")
    lines.append(
        f"{found.seconds:.0f} s; at most {found.error:.0%} of sound implementations are called faulty, over all checks "
        f"(Holm); exit code {int(found.exit_code)}."
    )
    return "\n".join(lines)


def as_json(found: "Battery") -> dict[str, Any]:
    """Return the results as plain JSON values; infinity is the string "Infinity"."""
    claim = found.claim
    return {
        "schema": "auditor.debug-dp/1",
        "function": found.implementation.name,
        "kind": "training" if found.implementation.trains else "step",
        "claim": {
            "records": claim.records,
            "expected_batch_size": claim.expected_batch_size,
            "steps": claim.steps,
            "noise_multiplier": claim.noise_multiplier,
            "max_grad_norm": claim.max_grad_norm,
            "delta": claim.delta,
            "epsilon": claim.epsilon,
        },
        "error": found.error,
        "exit_code": int(found.exit_code),
        "violated": [result.name for result in found.violated],
        "seconds": round(found.seconds, 2),
        "checks": [
            {
                "name": result.name,
                "title": result.title,
                "status": result.status.value,
                "sentence": result.sentence,
                "p_value": result.p_value,
                "adjusted_p_value": result.adjusted_p_value,
                "bound": None
                if result.bound is None
                else {
                    "lower": _number(result.bound.lower),
                    "ceiling": _number(result.bound.ceiling),
                    "delta": result.bound.delta,
                    "confidence": result.bound.confidence,
                    "kind": result.bound.kind.value,
                    "method": result.bound.method,
                    "neighboring": result.bound.neighboring.value,
                    "unit": result.bound.unit.value,
                    "assumptions": list(result.bound.assumptions),
                },
                "seconds": round(result.seconds, 2),
            }
            for result in found.results
        ],
    }


def _number(value: float) -> float | str:
    return "Infinity" if value == float("inf") else value
