"""Options that several commands share; what they import is light."""

from pathlib import Path
from typing import Annotated

import typer

WorkDir = Annotated[
    Path, typer.Option("--work-dir", help="Private folder for trained models and secrets; makes runs resumable.")
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or auto: CUDA if there is one.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="AUDITOR_DATA", help="Folder that is searched for data sets first."),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Let the plan name package.module:factory, which runs that code.")
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory", help="Most memory that reading a file may take, such as 8G; by default half of the machine's."
    ),
]
