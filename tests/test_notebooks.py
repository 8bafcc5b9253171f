"""The notebooks of the docs: they run from first to last in a kernel of their own, and are stored without what they put out."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.shown_tables import TAGS, Tags

from stemmadb.database import Database
from stemmadb.testing import make_workspace

nbformat = pytest.importorskip("nbformat", reason="the dependency group notebooks is not installed")
nbclient = pytest.importorskip("nbclient", reason="the dependency group notebooks is not installed")

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))

pytestmark = pytest.mark.docs
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    """A notebook as nbformat has it."""
    return nbformat.read(path, as_version=4)


@each_notebook
def test_notebooks_run(path: Path, committed_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell runs without an error or a word on stderr, and what shows itself is a table or a picture with a text."""
    make_workspace(committed_db, "lab")
    monkeypatch.setenv("DATABASE_URL", committed_db.url.render_as_string(hide_password=False))
    monkeypatch.setenv("PYTHONWARNINGS", "error::UserWarning,error::DeprecationWarning:stemmadb")
    # A busy machine is slow, which is told on stderr.
    monkeypatch.setenv("SLOW_QUERY_MS", "0")
    # Nothing of the developer's own Jupyter and IPython.
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = read(path)
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.output_type == "stream"] == []
    shown = [output.data for output in outputs]
    assert len(shown) >= 5
    for data in shown:
        found = Tags(data["text/html"])
        # Frames are shown by polars.
        assert set(found.tags) <= TAGS | {"img"} or 'class="dataframe"' in data["text/html"]
        assert all(attributes["alt"] for tag, attributes in zip(found.tags, found.attributes, strict=True) if tag == "img")
        assert len(data["text/html"]) < 200_000


@pytest.mark.offline
@each_notebook
def test_notebooks_are_stored_without_output(path: Path) -> None:
    """No picture, id or path of whoever ran it last; and every link leads to a page that is there."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert [cell.outputs for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)] == []
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#\s]+)", prose)
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []
