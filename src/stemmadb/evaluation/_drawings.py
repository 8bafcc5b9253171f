"""Axes that notebooks show. The only module that imports matplotlib; ``stemmadb.evaluation.plots`` imports it when something is drawn."""

import base64
import html
import io
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stemmadb._display import printable

_DOTS_PER_INCH: Final = 144
_MOST_LETTERS: Final = 5_000
"""Of the text that stands for the picture."""


class Drawing(Axes):
    """
    Axes on a figure of their own, which notebooks show as a picture with a text that says the same.

    matplotlib's figures are shown by pyplot, whose state belongs to the whole process. This one is known to nobody but who holds it.
    """

    def __init__(self, *args: Any, said: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self.said = said

    def _repr_html_(self) -> str:
        figure = self.get_figure(root=True)
        if figure is None:
            return ""
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=_DOTS_PER_INCH)
        data = base64.b64encode(picture.getvalue()).decode()
        said = html.escape(printable(self.said[:_MOST_LETTERS]))
        width = round(figure.get_figwidth() * 100)
        return f'<img alt="{said}" width="{width}" style="max-width:100%" src="data:image/png;base64,{data}">'


def draw(width: float, height: float, said: str) -> Axes:
    """Return empty axes on a new figure of this size in inches; ``said`` is its content in words."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure.add_subplot(axes_class=Drawing, said=said)
