"""
The process between the users of a server and the server. It is run as a script and imports nothing of the package.

It is the parent of the postmaster, so a dead one is reaped and never mistaken for a live one, and waits for an exclusive lock on
a file that each user locks shared. The kernel takes back the locks of a process that ends, however it ends; when the exclusive
lock is granted nobody is left, and the server is shut down. The lock goes with this process, after the server: whoever
comes meanwhile waits and then starts a new one.

Arguments: the file of the users' locks, the descriptor of a lock that says a supervisor lives, the socket's folder, user id and
group id of the server (-1 for this process's own), and the postmaster's command line.
"""

# A user waits until the postmaster runs, so what is not needed before is imported after. ctypes is needed in the child, and is here
# because the child may have become a user who cannot read this Python's library.
import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGINT = 2
_PATIENCE_S = 60


def _run_postmaster(supervisor: int, uid: int, gid: int, argv: list[str]) -> None:
    try:
        if uid >= 0:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        if sys.platform == "linux":
            # A killed supervisor would leave a server that nobody stops. Asked for after setuid, which clears it.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGINT, 0, 0, 0)
            if os.getppid() != supervisor:
                os._exit(1)
        os.execv(argv[0], argv)  # noqa: S606
    except OSError as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _stop_when_unused(users: int, postmaster: int) -> None:
    import fcntl
    import signal
    import time

    fcntl.flock(users, fcntl.LOCK_EX)
    os.kill(postmaster, signal.SIGINT)
    time.sleep(_PATIENCE_S)
    # Still here: end it without a checkpoint. The next start recovers from the log.
    os.kill(postmaster, signal.SIGQUIT)


def main(users_path: str, alive: int, socket_dir: str, uid: int, gid: int, argv: list[str]) -> None:
    """Leave the process that asked, start the postmaster, and wait for its end."""
    # Whoever started this waits for it: it ends here, and its child goes on with init as the parent that reaps it.
    if os.fork():
        os._exit(0)
    os.set_inheritable(alive, False)
    supervisor = os.getpid()
    postmaster = os.fork()
    if postmaster == 0:
        _run_postmaster(supervisor, uid, gid, argv)
    import contextlib
    import signal
    import threading

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os.kill(postmaster, signal.SIGINT))
    users = os.open(users_path, os.O_RDWR)
    threading.Thread(target=_stop_when_unused, args=(users, postmaster), daemon=True).start()
    os.waitpid(postmaster, 0)
    # A postmaster that was killed leaves its socket there.
    with contextlib.suppress(OSError):
        os.rmdir(socket_dir)  # noqa: PTH106
    # At once: the thread must not signal the postmaster's id after it was given to somebody else.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:])
