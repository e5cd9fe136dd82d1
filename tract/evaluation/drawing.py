"""How figures look: colours, markers, legends, and a PNG that depends on nothing but what is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tract.evaluation.cells import printable, shortened

# Okabe and Ito's palette, told apart by colour-blind readers; markers and line styles repeat the difference.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":", "-", "--")
GREY = "#8c8c8c"
DASHED = (0, (4, 3))  # what a judge is measured against
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def png_of(make: Callable[[], Figure]) -> bytes:
    """The PNG of a figure that is made in the style of all; bytes that depend on the figure and the version of matplotlib alone.

    No global state of matplotlib is left changed.
    """
    return png_with(make)[0]


def png_with(make: Callable[[], Figure]) -> tuple[bytes, Figure]:
    """As ``png_of``, and the figure as it was drawn, whose axes say where things lie in the image."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a user's matplotlibrc does not change reports
        matplotlib.rcParams.update(STYLE)
        buffer, figure = io.BytesIO(), make()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue(), figure


def new_figure(width: float, height: float, *, dpi: int = 130, pad: float = 0.12) -> Figure:
    """An empty figure of this size in inches, whose panels are laid out so that no texts overlap.

    Args:
        width, height: in inches. dpi: pixels an inch. pad: around each panel to the left and the right, in inches.
    """
    return Figure(figsize=(width, height), dpi=dpi, layout=ConstrainedLayoutEngine(w_pad=pad, h_pad=0.1))


def drawable(text: str) -> str:
    """The text in what the font has glyphs for, shortened."""
    # The font has no glyphs for most scripts; the full name stands in the tables.
    return shortened(printable(text).encode("latin-1", "replace").decode("latin-1"), 48)


def draw_legend(figure: Figure, title: str, names: Sequence[str], *, truth: bool = False, lines: Sequence[tuple[Artist, str]] = ()) -> None:
    """Title and legend above the figure: a colour, marker and line for each name.

    Args:
        truth: adds the grey of true scores. lines: further handles with what they stand for.
    """
    handles: list[Artist] = [
        Line2D([], [], color=colour_of(k), marker=marker_of(k), linestyle=line_of(k), markersize=6) for k in range(len(names))
    ]
    texts = list(map(drawable, names))
    if truth:
        handles.append(Patch(color=GREY, alpha=0.45, linewidth=0))
        texts.append("true scores")
    for handle, text in lines:
        handles.append(handle)
        texts.append(text)
    legend = figure.legend(handles, ["-"] * len(texts), title="-", loc="outside upper center", ncols=min(len(texts), 3))
    legend.get_title().set_fontsize(12)
    for artist, text in zip([legend.get_title(), *legend.get_texts()], [title, *texts], strict=True):
        artist.set_parse_math(False)  # a $ in a name is a dollar
        artist.set_text(text)  # not given as labels: matplotlib leaves out those that begin with an underscore


def colour_of(number: int) -> str:
    """The colour of the judge with this number; they come round again."""
    return COLOURS[number % len(COLOURS)]


def marker_of(number: int) -> str:
    """The marker of the judge with this number."""
    return MARKERS[number % len(MARKERS)]


def line_of(number: int) -> str:
    """The line style of the judge with this number."""
    return LINES[number % len(LINES)]
