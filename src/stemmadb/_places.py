"""Where in the application something happens, for messages to those who have to find it."""

import contextlib
import os
import sys
from pathlib import Path
from types import FrameType

import sqlalchemy
from greenlet import getcurrent  # type: ignore[import-untyped]

# The application is what stands behind these.
_BETWEEN = ("<sqlalchemy", f"{Path(sqlalchemy.__file__).parent}{os.sep}", f"{Path(__file__).parent}{os.sep}", contextlib.__file__)


def application_place() -> str | None:
    """Return where the application called the library, as ``file:line in function``; None when nothing of it is on the stack."""
    frame: FrameType | None = sys._getframe(1)
    below = getcurrent().parent
    while frame is not None or below is not None:
        if frame is None and below is not None:
            # A greenlet of SQLAlchemy's: who awaits it stands in the one below.
            frame, below = below.gr_frame, below.parent
            continue
        if frame is not None and not frame.f_code.co_filename.startswith(_BETWEEN):
            return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = None if frame is None else frame.f_back
    return None
