"""``python -m stemmadb`` is ``stemmadb``."""

from stemmadb.cli import main

main()
