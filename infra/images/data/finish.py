"""Prepare the packages of the runtime `data`. Runs in the image while it is built, and removes itself.

Uses the standard library, and matplotlib once it is prepared.
"""

import compileall
import importlib
import site
import sys
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

PACKAGES: Final = Path(site.getsitepackages()[0])
# matplotlib keeps its list of fonts, which takes half a second to write, in the user's cache directory, which is
# empty in each sandbox. So it is written now, and kept with the fonts.
FONT_LIST: Final = ("Path(\n        mpl.get_cachedir(), ", "Path(\n        mpl.get_data_path(), ")


def move_font_list() -> None:
    """Let matplotlib keep its list of fonts in its data directory."""
    module = PACKAGES / "matplotlib/font_manager.py"
    source = module.read_text()
    if source.count(FONT_LIST[0]) != 1:
        raise SystemExit("matplotlib's font_manager.py has changed")
    module.write_text(source.replace(*FONT_LIST))


def compile_packages() -> None:
    """Compile each source to bytecode that Python never checks against it: the image is read-only."""
    if not compileall.compile_dir(PACKAGES, quiet=1, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH):
        raise SystemExit("a package does not compile")


if __name__ == "__main__":
    move_font_list()
    compile_packages()
    sys.dont_write_bytecode = True
    importlib.import_module("matplotlib.font_manager")  # writes the list of fonts
    Path(__file__).unlink()
