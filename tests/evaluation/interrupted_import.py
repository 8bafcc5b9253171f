"""A process that imports a log of Inspect AI, and says so after each batch; it is there to be killed, and to be measured."""

import resource
import sys
from pathlib import Path

import stemmadb
from stemmadb.evaluation import importers
from stemmadb.evaluation.importers import ImportProgress


def most_memory() -> int:
    """
    Return the most memory that this process has had so far, in KiB.

    Of Linux's own count: that of getrusage begins with what the parent had when it forked.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most


def tell(progress: ImportProgress) -> None:
    """Say how far the import is."""
    print(progress.phase, progress.done, flush=True)


if __name__ == "__main__":
    url, workspace, *files = sys.argv[1:]
    with stemmadb.connect(url, workspace=workspace) as db:
        importers.import_inspect(db, [Path(files[0])])
        before = most_memory()
        for file in files[1:]:
            importers.import_inspect(db, [Path(file)], on_progress=tell)
        print("grown", most_memory() - before, "of", before, flush=True)
