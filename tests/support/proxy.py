"""A TCP proxy before a real server, for networks and stores that fail."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>later</Message></Error>"
BLOCK_BYTES = 64 * 1024


class FaultyProxy:
    """Passes bytes on, until it is told otherwise.

    Args:
        target: Host and port of the server behind it.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self.cut_after: list[int] = []
        """For each of the next connections, after how many bytes of answer it breaks."""
        self.cut_body_after: list[int] = []
        """The same, not counting the answer's head."""
        self.slow_downs = 0
        """How many of the next connections are answered by 503 and SlowDown, and closed."""
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            if self.slow_downs:
                self.slow_downs -= 1
                client.recv(BLOCK_BYTES)
                head = (
                    "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\n"
                    f"Content-Length: {len(SLOW_DOWN)}\r\nConnection: close\r\n\r\n"
                )
                client.sendall(head.encode() + SLOW_DOWN)
                return
            limit = self.cut_after.pop(0) if self.cut_after else None
            body_limit = self.cut_body_after.pop(0) if self.cut_body_after else None
            with socket.create_connection(self._target) as server:
                upward = threading.Thread(target=_copy, args=(client, server), daemon=True)
                upward.start()
                if body_limit is not None:
                    _copy_head(server, client)
                    limit = body_limit
                _copy(server, client, limit)
                for end in (client, server):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                upward.join()


def _copy(source: socket.socket, sink: socket.socket, limit: int | None = None) -> None:
    with contextlib.suppress(OSError):
        while limit is None or limit > 0:
            data = source.recv(BLOCK_BYTES if limit is None else min(BLOCK_BYTES, limit))
            if not data:
                break
            sink.sendall(data)
            if limit is not None:
                limit -= len(data)


def _copy_head(source: socket.socket, sink: socket.socket) -> None:
    """Passes on the head of an answer and nothing of its body."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (byte := source.recv(1)):
        head += byte
    sink.sendall(head)


@contextmanager
def faulty_proxy(host: str, port: int) -> Iterator[FaultyProxy]:
    """Runs one for a block."""
    proxy = FaultyProxy((host, port))
    try:
        yield proxy
    finally:
        proxy.close()
