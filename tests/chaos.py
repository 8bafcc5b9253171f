"""A proxy between client and server that knows the protocol's messages, so that faults happen exactly where they are wanted."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

from sqlalchemy.engine import URL

Fault = str
SWALLOW = "swallow the reply to COMMIT"
DROP = "drop COMMIT"


class ChaosProxy:
    """
    Forwards to the server of a URL, on a loopback port of its own.

    ``next_fault`` is asked once for every COMMIT that a client sends: None lets it pass.
    """

    def __init__(self, target: URL, next_fault: Callable[[], Fault | None] = lambda: None, port: int = 0) -> None:
        self._target = target
        self._next_fault = next_fault
        self._listener = socket.create_server(("127.0.0.1", port))
        self._open: list[socket.socket] = []
        self.faults: list[Fault] = []
        self.is_silent = threading.Event()
        """While set, what arrives is dropped and the connections stay open: a network that swallows everything."""
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> URL:
        """The same database, through the proxy."""
        port = self._listener.getsockname()[1]
        query = {name: value for name, value in self._target.query.items() if name not in ("host", "port")}
        return self._target.set(host="127.0.0.1", port=port, query=query)

    def close(self) -> None:
        """Stop listening, and cut what is open."""
        # A blocked accept() does not notice that its socket is closed.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(5)

    def __enter__(self) -> "ChaosProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> socket.socket:
        host = self._target.query.get("host") or self._target.host or "127.0.0.1"
        port = int(str(self._target.query.get("port") or self._target.port or 5432))
        if str(host).startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
            return server
        return socket.create_connection((str(host), port))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            self._open += [client, server]
            swallow = threading.Event()
            threading.Thread(target=self._forward, args=(client, server, swallow), daemon=True).start()
            threading.Thread(target=self._answer, args=(client, server, swallow), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        """Client to server, message by message after the start-up."""
        try:
            while (size := struct.unpack("!i", _read(client, 4))[0]) == 8 and (body := _read(client, 4)):
                # SSL and GSS requests: the server answers one byte, and start-up begins again.
                server.sendall(struct.pack("!i", size) + body)
            server.sendall(struct.pack("!i", size) + _read(client, size - 4))
            while True:
                kind, size = struct.unpack("!ci", _read(client, 5))
                body = _read(client, size - 4)
                fault = self._next_fault() if kind == b"Q" and body == b"COMMIT\x00" else None
                if fault is not None:
                    self.faults.append(fault)
                if fault == DROP:
                    raise ConnectionError
                if fault == SWALLOW:
                    swallow.set()
                if self.is_silent.is_set():
                    continue
                server.sendall(kind + struct.pack("!i", size) + body)
        except (OSError, ConnectionError):
            if not swallow.is_set():
                _cut(client, server)

    def _answer(self, client: socket.socket, server: socket.socket, swallow: threading.Event) -> None:
        """Server to client."""
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if swallow.is_set():
                    # The server has answered, so the transaction is over; the client never hears of it.
                    break
                if not self.is_silent.is_set():
                    client.sendall(data)
        _cut(client, server)


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = source.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def _cut(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
