"""A process that upgrades the notes of ``document_releases``, and says so after each batch; it is there to be killed."""

import sys

from tests.kernel.document_releases import NewRow

import stemmadb
from stemmadb import documents

if __name__ == "__main__":
    with stemmadb.connect(sys.argv[1]) as db:
        print("ready", flush=True)
        report = documents.upgrade(db, NewRow.note, batch=int(sys.argv[2]), progress=lambda report: print(report.upgraded, flush=True))
        print("left", report.left, flush=True)
