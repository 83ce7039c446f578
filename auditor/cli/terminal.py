"""What reaches a terminal: names from files and plans are in it, so it holds nothing that a terminal obeys."""

import typer

from reports.untrusted import writable


def say(text: object, *, err: bool = False) -> None:
    """Print text, of one line or several, with control characters replaced; on standard error if `err`."""
    typer.echo(harmless(str(text)), err=err)


def harmless(text: str) -> str:
    r"""Return text whose control characters are replaced by U+FFFD; line breaks and tabs stay.

    A carriage return goes too: what follows it would write over what stands before.

    Examples:
        >>> harmless("a\x1b[2J\rb\n") == "a\ufffd[2J\ufffdb\n"
        True
    """
    return writable(text).replace("\r", "\ufffd")
