"""Content by ranged GETs from the addresses that the server hands out.

The object store is not trusted and gets no credential but the one in the address. It must answer
exactly what it is asked: 206 with the very range, nothing encoded, nothing moved elsewhere.

`http.client` and not a library above it, because all that those add must be off here: redirects,
decoding, proxies, cookies, retries; and because bytes are read into the buffer in which they are
hashed.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from sealift.client.transfer.errors import (
    BlobNotThere,
    SourceTooSlow,
    SourceUnreachable,
    WrongAnswer,
)
from sealift.client.transfer.grpc_source import Location, ServerContent
from sealift.client.transfer.source import BlobRange, Patience
from sealift.host.rpc import is_loopback
from sealift.protocol.names import Digest

NAME = "the object store"
READ_BYTES = 256 * 1024
"""The most that one read takes from the socket, so that deadlines are seen."""
_VOID = {401, 403}
"""What object stores answer to an address that has expired."""
_NO_ADDRESS = "the server gave an address that is none"
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "sealift"}


@dataclass(frozen=True, slots=True)
class _Origin:
    """A server of addresses, to which connections are kept."""

    scheme: str
    host: str
    port: int | None


class PresignedContent:
    """Blobs in the object store that the server points to.

    Args:
        server: Hands out the addresses.
        patience: How long to wait.
        require_tls: True refuses plain `http://` but to loopback, as the content may be private.
        ca: A certificate to trust besides the machine's own, in PEM.
    """

    def __init__(
        self,
        server: ServerContent,
        *,
        patience: Patience | None = None,
        require_tls: bool = True,
        ca: str | None = None,
    ) -> None:
        self._server = server
        self._patience = patience or Patience()
        self._require_tls = require_tls
        self._ca = ca
        self._lock = threading.Lock()
        self._locations: dict[Digest, Location] = {}
        self._idle: dict[_Origin, list[http.client.HTTPConnection]] = {}
        self._tls: ssl.SSLContext | None = None

    @property
    def name(self) -> str:
        """For people."""
        return NAME

    def prepare(self, digests: Sequence[Digest]) -> None:
        """See `ContentSource.prepare`."""
        found = self._server.locate(digests)
        with self._lock:
            self._locations.update(found)

    def open(self, wanted: BlobRange) -> PresignedStream:
        """See `ContentSource.open`. An address that has expired is asked for anew, once."""
        with self._lock:
            location = self._locations.get(wanted.digest)
        if location is None:
            location = self._locate(wanted.digest)
        stream = self._get(location, wanted)
        if stream is None:
            stream = self._get(self._locate(wanted.digest), wanted)
        if stream is None:
            raise WrongAnswer(NAME, "it does not accept the address that the server just gave")
        return stream

    def close(self) -> None:
        """Closes the connections that are kept."""
        with self._lock:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def _locate(self, digest: Digest) -> Location:
        self.prepare([digest])
        with self._lock:
            location = self._locations.get(digest)
        if location is None:
            raise BlobNotThere(NAME, f"the server knows no {digest.reference}")
        return location

    def _get(self, location: Location, wanted: BlobRange) -> PresignedStream | None:
        """The answer to a range, or None if the address is void."""
        if not location.url:
            raise BlobNotThere(NAME, "the server gives no address for this blob")
        url = self._checked(location.url)
        origin = _Origin(url.scheme, url.hostname or "", url.port)
        kept = self._take(origin)
        if kept is not None:
            try:
                return self._ask(origin, kept, url, wanted)
            except SourceUnreachable:
                pass  # the store may have closed it meanwhile: try a new one
        return self._ask(origin, self._connect(origin), url, wanted)

    def _ask(
        self,
        origin: _Origin,
        connection: http.client.HTTPConnection,
        url: SplitResult,
        wanted: BlobRange,
    ) -> PresignedStream | None:
        target = f"{url.path or '/'}?{url.query}" if url.query else url.path or "/"
        headers = {**_HEADERS, "Range": f"bytes={wanted.offset}-{wanted.end - 1}"}
        answered = False
        try:
            with _ending(connection, self._patience.connect_s + self._patience.grace_s):
                connection.request("GET", target, headers=headers)
                open_socket = connection.sock
                response = connection.getresponse()
            if response.status in _VOID:
                return None
            _check_answer(response, wanted)
            answered = True
        except UnicodeError:
            raise WrongAnswer(NAME, _NO_ADDRESS) from None
        except (http.client.HTTPException, OSError) as error:
            raise _unreachable(error) from error
        finally:
            if not answered:
                connection.close()
        return PresignedStream(
            response, wanted, self._patience, open_socket, lambda: self._keep(origin, connection)
        )

    def _checked(self, text: str) -> SplitResult:
        """An address that may be used; the server is not trusted to give no other."""
        try:
            url = urlsplit(text)
            port_ok = url.port is None or url.port > 0
        except ValueError:
            raise WrongAnswer(NAME, _NO_ADDRESS) from None
        if (
            url.scheme not in {"http", "https"}
            or not url.hostname
            or not port_ok
            or "@" in url.netloc
        ):
            raise WrongAnswer(NAME, _NO_ADDRESS)
        if url.scheme == "http" and self._require_tls and not is_loopback(url.hostname):
            raise WrongAnswer(NAME, "the server gave a plain http:// address; https:// is required")
        return url

    def _connect(self, origin: _Origin) -> http.client.HTTPConnection:
        timeout = self._patience.connect_s
        connection: http.client.HTTPConnection
        try:
            if origin.scheme == "https":
                connection = http.client.HTTPSConnection(
                    origin.host, origin.port, timeout=timeout, context=self._context()
                )
            else:
                connection = http.client.HTTPConnection(origin.host, origin.port, timeout=timeout)
        except http.client.InvalidURL:
            raise WrongAnswer(NAME, _NO_ADDRESS) from None
        try:
            connection.connect()
        except UnicodeError:
            connection.close()
            raise WrongAnswer(NAME, _NO_ADDRESS) from None
        except OSError as error:
            connection.close()
            raise _unreachable(error) from error
        connection.sock.settimeout(self._patience.idle_s)
        return connection

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()
                if self._ca:
                    self._tls.load_verify_locations(cadata=self._ca)
            return self._tls

    def _take(self, origin: _Origin) -> http.client.HTTPConnection | None:
        with self._lock:
            kept = self._idle.get(origin)
            return kept.pop() if kept else None

    def _keep(self, origin: _Origin, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._idle.setdefault(origin, []).append(connection)


class PresignedStream:
    """The answer to one ranged GET."""

    def __init__(
        self,
        response: http.client.HTTPResponse,
        wanted: BlobRange,
        patience: Patience,
        open_socket: socket.socket,
        keep: Callable[[], None],
    ) -> None:
        self._response = response
        self._left = wanted.length
        self._patience = patience
        self._socket = open_socket
        self._keep = keep

    def read_into(self, view: memoryview) -> None:
        """See `ByteStream.read_into`."""
        deadline = self._patience.deadline(len(view))
        filled = 0
        while filled < len(view):
            try:
                data = self._response.read1(min(len(view) - filled, READ_BYTES))
            except (http.client.HTTPException, OSError) as error:
                raise _unreachable(error) from error
            if not data:
                message = f"it ended {self._left:,} bytes before the end of a range"
                raise SourceUnreachable(NAME, message)
            view[filled : filled + len(data)] = data
            filled += len(data)
            self._left -= len(data)
            self._patience.check(NAME, deadline)

    def close(self) -> None:
        """See `ByteStream.close`: a connection whose answer was read to its end is kept."""
        if self._left == 0 and not self._response.will_close:
            self._response.read()  # nothing is left; it lets the connection go
            self._keep()
        else:
            self._response.close()
            self._socket.close()

    def abort(self) -> None:
        """See `ByteStream.abort`."""
        _shut(self._socket)


def _check_answer(response: http.client.HTTPResponse, wanted: BlobRange) -> None:
    """Demands exactly the range that was asked for.

    Raises:
        BlobNotThere: If the store has no such object.
        SourceUnreachable: If it asks to try later.
        WrongAnswer: On any other answer.
    """
    status = response.status
    if status in {404, 410}:
        raise BlobNotThere(NAME, f"it answered {status}")
    if status in {408, 425, 429} or status >= 500:
        raise SourceUnreachable(NAME, f"it answered {status}")
    if status != 206:
        what = ": a redirect is not followed" if 300 <= status < 400 else " to a range"
        raise WrongAnswer(NAME, f"it answered {status}{what}; 206 is required")
    expected = f"bytes {wanted.offset}-{wanted.end - 1}/{wanted.blob_length}"
    found = response.getheader("Content-Range", "")
    if found != expected:
        raise WrongAnswer(NAME, f"it sent the range {found!r}; {expected!r} is required")
    if response.getheader("Content-Encoding", "identity") != "identity":
        raise WrongAnswer(NAME, "it sent encoded bytes")
    if response.length != wanted.length:
        raise WrongAnswer(NAME, f"it sends {response.length} bytes of {wanted.length}")


@contextmanager
def _ending(connection: http.client.HTTPConnection, seconds: float) -> Iterator[None]:
    """Ends a connection that is still busy after some seconds, however it drips."""
    ended = threading.Event()

    def end() -> None:
        ended.set()
        _shut(connection.sock)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    failed: Exception | None = None
    try:
        yield
    except (http.client.HTTPException, OSError) as error:
        failed = error
    finally:
        timer.cancel()
    if ended.is_set():  # whatever it looked like: also as if the answer's head had ended there
        raise SourceTooSlow(NAME, f"it did not answer within {seconds:,.1f} s") from failed
    if failed is not None:
        raise failed


def _shut(open_socket: socket.socket | None) -> None:
    """Wakes whoever reads from a socket. `SSLSocket.shutdown` would race with the reader."""
    if open_socket is not None:
        with suppress(OSError):
            socket.socket.shutdown(open_socket, socket.SHUT_RDWR)


def _unreachable(error: Exception) -> SourceUnreachable | SourceTooSlow:
    if isinstance(error, TimeoutError):
        return SourceTooSlow(NAME, "it does not answer")
    return SourceUnreachable(NAME, f"the connection failed: {error or type(error).__name__}")
