"""Logarithmic axes in the common style, which prints matplotlib's powers of ten as their source."""

from __future__ import annotations

from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter


def plain_numbers(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2 and 5 in each decade, as 0.5 or 200."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
