"""Save matplotlib's figures where another backend would show them: figure-1.png, figure-2.png and so on.

The image of the runtime `data` sets this module as the backend. Figures are drawn by Agg.
"""

import itertools
from pathlib import Path

from matplotlib._pylab_helpers import Gcf
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

_DIRECTORY = Path.cwd()
_numbers = itertools.count(1)


class FigureManager(FigureManagerBase):  # type: ignore[misc]
    """The window of a figure, which is a file."""

    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:  # noqa: ARG003 - as matplotlib calls it
        """Save and close all open figures, as notebooks do. For `plt.show()`; nothing blocks."""
        for manager in Gcf.get_all_fig_managers():
            manager.show()
            Gcf.destroy(manager)

    def show(self) -> None:
        """Save the figure under the next number that no file has. For `figure.show()`."""
        paths = (_DIRECTORY / f"figure-{number}.png" for number in _numbers)
        self.canvas.figure.savefig(next(path for path in paths if not path.exists()))


class FigureCanvas(FigureCanvasAgg):  # type: ignore[misc]
    """Agg's canvas, with a manager that saves."""

    manager_class = FigureManager
