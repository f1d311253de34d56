"""The style that all plots share, and writing one atomically, without the global state of pyplot."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager, ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryFormatter
from matplotlib.figure import Figure
from matplotlib.text import Text as MatplotlibText

from paddle_resnet.files import write_atomically

# Okabe and Ito's colours, told apart with any kind of colour vision ("Color Universal Design", 2008).
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
INK, GREY = "#222222", "#707070"

# Installed ones draw the characters that the default font lacks: class names may be Chinese.
FALLBACK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("PingFang SC", "Microsoft YaHei", "SimHei"),
)

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "savefig.facecolor": "white",
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.15,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,  # a class may be named "$5"
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
    "lines.linewidth": 2.0,
}


def save_figure(path: Path, draw: Callable[[], Figure]) -> None:
    """Draw in the common style and write the PNG to `path` atomically."""
    png = figure_png(draw)
    write_atomically(path, lambda temporary: temporary.write_bytes(png))


def figure_png(draw: Callable[[], Figure]) -> bytes:
    """Draw in the common style; return the PNG."""
    png = io.BytesIO()
    with mpl.rc_context({**STYLE, "font.family": available_fonts()}), warnings.catch_warnings():
        # Characters that no font has are drawn as boxes; one warning for each would fill the terminal.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        draw().savefig(png, format="png")
    return png.getvalue()


def available_fonts() -> list[str]:
    """Return the names of the fonts, the default one first; there is no other where nothing can draw Chinese."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(font for font in FALLBACK_FONTS if font in installed)]


def relabel(figure: Figure, words: Callable[[str], str]) -> Figure:
    """Pass every text of a figure through `words`; return it."""

    def translated(formatter: ticker.Formatter) -> Callable[..., str]:
        return lambda value, position: words(formatter(value, position))

    for artist in figure.findobj(MatplotlibText):
        if artist.get_text():
            artist.set_text(words(artist.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        formatter = axis.get_major_formatter()  # it sets the texts of the ticks when the figure is drawn
        if isinstance(formatter, ticker.FixedFormatter | ticker.FuncFormatter | StrCategoryFormatter):
            axis.set_major_formatter(translated(formatter))
    return figure


def make_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, *, title: str = "", title_size: int = 12, **grid: Any
) -> tuple[Figure, Any]:
    """Make a figure of `width` x `height` inches; return it with its panels, as `Figure.subplots` returns them."""
    figure = Figure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=title_size, fontweight="bold")
    return figure, figure.subplots(rows, columns, **grid)


def without_axes(axes: Axes) -> None:
    """Remove ticks and frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def plain_log_labels(axis: Axis, subs: Sequence[float] = (1.0, 2.0, 5.0)) -> None:
    """Label a logarithmic axis at 1, 2 and 5 in each decade, as 0.5 or 200; `STYLE` does not typeset powers of ten."""
    axis.set_major_locator(ticker.LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(ticker.NullFormatter())


def label_log_axis(axis: Axis, values: Sequence[float]) -> None:
    """Label a logarithmic axis at `values` only."""
    axis.set_major_locator(ticker.FixedLocator(values))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(ticker.NullLocator())


def shortened(text: str, longest: int) -> str:
    """Cut `text` to at most `longest` characters, ending in an ellipsis."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def percent(fraction: float) -> str:
    """Format a fraction as a percentage with one decimal, never rounded up to 100% ("99.9%")."""
    return "100%" if fraction == 1 else f"{min(100 * fraction, 99.9):.1f}%"
