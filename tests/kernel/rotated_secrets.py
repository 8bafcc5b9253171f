"""A process that brings stored secrets under the newest key, and says so after each batch; it is there to be killed."""

import sys

import stemmadb
from stemmadb import secrets

if __name__ == "__main__":
    with stemmadb.connect(sys.argv[1]) as db:
        print("ready", flush=True)
        reports = secrets.rotate(
            db, "users.two_factor_secret", batch=int(sys.argv[2]), progress=lambda report: print(report.rotated, flush=True)
        )
        print("complete", all(report.complete for report in reports), flush=True)
