"""Is a server there? Only its own answer on its socket counts: a process id may belong to somebody else by now."""

from __future__ import annotations

import enum
import socket
import struct
from pathlib import Path

_PARAMETERS = b"user\0postgres\0database\0postgres\0\0"
# Version 3.0 of the protocol, then the parameters of the connection.
_STARTUP = struct.pack("!ii", 8 + len(_PARAMETERS), 196608) + _PARAMETERS
_TERMINATE = b"X\0\0\0\4"


class State(enum.Enum):
    """What a server says about itself."""

    READY = "ready"
    BUSY = "busy"
    """Starting, recovering or shutting down."""
    DOWN = "down"
    """Nobody answers."""


def socket_path(socket_dir: Path, port: int) -> Path:
    """Return the file that a server listens on."""
    return socket_dir / f".s.PGSQL.{port}"


def probe(socket_dir: Path, port: int) -> State:
    """Log in to the server as far as its first answer (2 ms)."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(socket_path(socket_dir, port)))
            connection.sendall(_STARTUP)
            answer = connection.recv(4096)
            if answer.startswith(b"R"):
                connection.sendall(_TERMINATE)
                return State.READY
        except TimeoutError:
            return State.BUSY
        except OSError:
            return State.DOWN
    if not answer.startswith(b"E"):
        return State.DOWN
    # 57P03 cannot_connect_now. Any other refusal, such as 53300 too_many_connections, comes from a server at work.
    return State.BUSY if b"C57P03\0" in answer else State.READY
