"""Run the benchmarks: `python -m benchmarks [name ...] [--quick]`; tables to standard output, JSON to a folder."""

import argparse
import importlib
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Settings, Style, note, write

MODULES = {
    "step": "benchmarks.dp_sgd_step",
    "shadows": "benchmarks.shadow_training",
    "scaling": "benchmarks.scaling",
    "scoring": "benchmarks.scoring",
    "startup": "benchmarks.startup",
    "membership": "benchmarks.membership",
    "ladder": "benchmarks.ladder",
    "reconstruction": "benchmarks.reconstruction",
    "labels": "benchmarks.label_inference",
    "kills": "benchmarks.kills",
}
# They measure what attacks, bounds and kills find, not seconds, and run when they are named.
UNTIMED = ("membership", "ladder", "reconstruction", "kills")
TITLES = {
    "step": "One DP-SGD step",
    "shadows": "Training shadow models",
    "scaling": "Cost against models, records and epochs",
    "scoring": "Scoring with trained models",
    "startup": "Start of the command line",
    "membership": "Membership attacks",
    "ladder": "Epsilon proved and epsilon shown",
    "reconstruction": "Reconstruction and inference attacks",
    "labels": "Label inference from single gradients",
    "kills": "Commands that are killed",
}


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    unknown = [name for name in given.names if name not in MODULES]
    if unknown:
        _parser().error(f"there is no benchmark {unknown[0]!r}; choose from {', '.join(MODULES)}")
    # Opacus and ART warn of their own deprecated calls, in tables that are to be read.
    warnings.simplefilter("ignore")
    settings = Settings(
        quick=given.quick,
        repeats=given.repeats,
        device=given.device,
        width=given.width,
        compiled=not given.eager,
        models=tuple(given.models) if given.models else None,
        baseline_models=given.baseline_models,
        private=given.private,
    )
    style: Style = "markdown" if given.markdown else "text"
    failed = 0
    for name in dict.fromkeys(given.names or [name for name in MODULES if name not in UNTIMED]):
        start = time.monotonic()
        note(f"{name} ...")
        try:
            file_name, result, text = _run(name, settings, style)
        except Exception as error:
            note(f"{name} failed: {type(error).__name__}: {error}")
            failed += 1
            continue
        path = write(file_name + ("-quick" if settings.quick else ""), result, given.out, device=settings.device)
        figure_of = getattr(importlib.import_module(MODULES[name]), "figure_of", None)
        if figure_of is not None:
            path.with_suffix(".svg").write_text(figure_of(result), encoding="utf-8")
        print(f"{'## ' if given.markdown else ''}{TITLES[name]}\n\n{text}\n", flush=True)
        note(f"{name}: {time.monotonic() - start:.0f} s, written to {path}")
    return 1 if failed else 0


def _run(name: str, settings: Settings, style: Style) -> tuple[str, dict[str, Any], str]:
    """Return the name of the file, the result and its table."""
    module = importlib.import_module(MODULES[name])
    if name != "scoring":
        result = module.run(settings)
        return module.NAME, result, module.show(result, style)
    from benchmarks.harness import table

    rounds = settings.rounds(full=5, quick=1)
    rows = module.measure(rounds)
    columns = {"case": "case", "records": "records", "models": "models", "seconds": "seconds"}
    columns["MiB above inputs"] = "peak_mib"
    settled = {"rounds": rounds, "quick": settings.quick}
    return name, {"settings": settled, "unit": "seconds, MiB", "rows": rows}, table(rows, columns, style)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"which: {', '.join(MODULES)}; by default all but {', '.join(UNTIMED)}"
    )
    parser.add_argument("--quick", action="store_true", help="sizes of seconds, to see that everything runs")
    parser.add_argument("--repeats", type=_positive, help="rounds, in place of each benchmark's own number")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where models are trained")
    parser.add_argument("--width", type=_positive, help="shadows, scaling: models per stack; without it ours chooses")
    parser.add_argument("--eager", action="store_true", help="step, scaling: nothing is compiled")
    parser.add_argument("--models", type=_positive, nargs="+", help="shadows, scaling: numbers of models")
    parser.add_argument("--baseline-models", type=_positive, default=4, help="shadows: models that baselines train")
    parser.add_argument("--private", action="store_true", help="shadows: also DP-SGD, against a loop with Opacus")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
