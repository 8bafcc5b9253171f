"""A process that imports a log of Inspect AI, and says so after each batch; it is there to be killed, and to be measured."""

import resource
import sys
from pathlib import Path

import stemmadb
from stemmadb.evaluation import importers
from stemmadb.evaluation.importers import ImportProgress


def tell(progress: ImportProgress) -> None:
    """Say how far the import is."""
    print(progress.phase, progress.done, flush=True)


if __name__ == "__main__":
    url, workspace, *files = sys.argv[1:]
    with stemmadb.connect(url, workspace=workspace) as db:
        importers.import_inspect(db, [Path(files[0])])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for file in files[1:]:
            importers.import_inspect(db, [Path(file)], on_progress=tell)
        print("grown", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, flush=True)
