"""What all figures share: a pinned style, deterministic SVG, and labels that cannot break a file."""

import io
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK = "#1b1f24"
FAINT = "#6b7480"
# Seaborn's colour-blind palette without its yellow and light grey, which vanish on paper.
COLORS = tuple(sns.color_palette("colorblind", as_cmap=False).as_hex()[place] for place in (0, 3, 2, 4, 7, 5, 9))
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
MEMBERS, NONMEMBERS = COLORS[1], COLORS[0]
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": FAINT,
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],  # ships with matplotlib, so every machine has the same one
    "font.size": 10,
    "grid.color": "#d5d9de",
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "path",
    "svg.hashsalt": "privacy-auditor",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a title is a dollar sign
    "xtick.color": FAINT,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.color": FAINT,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9.5,
}


class Drawing(NamedTuple):
    """A figure: SVG text and the alternative text that states its conclusion."""

    svg: str
    alt: str


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Give a figure with one pair of axes, drawn in the house style whatever the user's own settings are.

    Args:
        width: In inches.
        height: In inches.

    Yields:
        The figure, which pyplot does not know of, and its axes.
    """
    own_settings = {"backend", "backend_fallback", "interactive", "toolbar", "timezone", "datapath"}
    neutral: dict[Any, Any] = {key: value for key, value in mpl.rcParamsDefault.items() if key not in own_settings}
    with warnings.catch_warnings(), mpl.rc_context({**neutral, **_STYLE}):
        # A title may hold a letter that the font lacks; it is then drawn as a box, and the alternative text has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def to_svg(figure: Figure) -> str:
    """Write a figure as SVG text without a date; call it inside the `canvas` that made the figure.

    Args:
        figure: The figure.

    Returns:
        The text, the same for the same figure.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def label(text: str, *, width: int = 44) -> str:
    """Make text of the record fit for a figure: one line, printable, shortened.

    Args:
        text: Any text.
        width: The most characters to keep.

    Returns:
        The label.
    """
    return textwrap.shorten("".join(letter if letter.isprintable() else " " for letter in text), width, placeholder="…")
