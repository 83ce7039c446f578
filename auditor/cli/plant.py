"""`auditor plant`: the command; what it imports at the top is light."""

from pathlib import Path
from typing import Annotated

import typer

from auditor.cli.errors import Debug, Quiet, guarded
from auditor.cli.options import DataDir
from auditor.cli.terminal import say

NOT_PLANTED = "Nothing was planted. The next call with the same --out and --secret removes what was left."


def plant(
    source: Annotated[str, typer.Argument(help="Data: a name that `auditor list` shows, a file, or an image folder.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the planted data.")],
    secret: Annotated[
        Path, typer.Option("--secret", help="New file for the sealed coins, outside --out; training must not read it.")
    ],
    canaries: Annotated[int, typer.Option("--canaries", help="Candidates; each is planted by its own fair coin.")],
    kind: Annotated[str, typer.Option("--kind", help="Kind of canary that `auditor list` shows.")] = "mislabelled",
    label: Annotated[str | None, typer.Option("--label", help="Tables: the label column.")] = None,
    reading: Annotated[
        Path | None,
        typer.Option(
            "--reading", help="TOML file with further keys of a plan's source: ranges, categories, exclude ..."
        ),
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="Claim to be tested; too few canaries for it are refused.")
    ] = None,
    delta: Annotated[float, typer.Option("--delta", help="Delta of the claim.")] = 1e-5,
    attacks: Annotated[
        int | None,
        typer.Option(
            "--attacks", help="Attacks that the audit will run: fewer show more. Those of a plan that lists none."
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Plant even if the claim cannot be contradicted.")] = False,
    data_dir: DataDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Plant canaries into a data set by fair coins, so that your own training on it can be audited afterwards."""
    with guarded(debug=debug, stopped=NOT_PLANTED):
        from auditor.canaries.request import detectability, find_kind, read_request
        from auditor.cli.progress import shown_progress

        chosen, asked = find_kind(kind), read_request(source, label, reading)
        for line in detectability(canaries, epsilon=epsilon, delta=delta, attacks=attacks, force=force):
            say(line)
        from auditor.canaries.planting import plant as write

        with shown_progress(quiet=quiet) as on_progress:
            planted = write(
                asked,
                kind=chosen,
                canaries=canaries,
                out=out,
                secret=secret,
                data_dir=data_dir,
                on_progress=on_progress,
            )
        say(f"Planted data: {planted.data}")
        if planted.removed:
            say(f"Records that left the data because canaries were made of them: {planted.removed}")
        say(f"Commitment: {planted.commitment}")
        say(f"Sealed coins: {secret} (keep it from the training; the audit needs it)")
