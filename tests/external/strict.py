"""An HTTP/1.1 server that takes nothing but the exact grammar and keeps count: each request it saw, and every byte that was none."""

import re
import socket
import threading

PIECE = 64 * 1024
HEAD_BYTES = 64 * 1024
# RFC 9112 §3 and §5, without any of the leniency that it grants a recipient; only that a target may hold octets outside
# ASCII, which no browser sends, the corpus wants let through, and no reader takes for an end.
REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/1\.1")
FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
LENGTH = re.compile(rb"[0-9]{1,12}")
# Names the answer that a request got, so that whoever reads an answer can tell whose it is.
MARK = "x-origin-request"


class Malformed(Exception):
    """Bytes that are no request."""


class Gone(Exception):
    """The peer closed where nothing was begun, or in the middle of something."""


class Seen:
    """One request as it arrived."""

    def __init__(self, number, method, target, fields):
        self.number = number
        self.method = method
        self.target = target
        self.fields = fields
        self.body = b""
        self.whole = False

    def __repr__(self):
        state = f"{len(self.body)} bytes of body" if self.whole else "cut off"
        return f"{self.method.decode()} {self.target.decode('latin-1')} ({state})"


class StrictOrigin:
    """Listens on a loopback port. `requests` and `malformed` grow as bytes arrive; both are read under `lock`."""

    def __init__(self):
        self.requests = []
        self.malformed = []
        self.lock = threading.Lock()
        self._open = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()
        with self.lock:
            still_open = list(self._open)
        for connection in still_open:
            connection.close()

    def since(self, mark):
        """What arrived after `mark()` gave `mark`: requests, and bytes that were none."""
        with self.lock:
            return self.requests[mark[0] :], self.malformed[mark[1] :]

    def mark(self):
        with self.lock:
            return len(self.requests), len(self.malformed)

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self.lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        reading = Reading(connection)
        try:
            while True:
                seen = self._request(reading)
                told = seen.target
                head = f"HTTP/1.1 200 OK\r\n{MARK}: {seen.number}\r\nContent-Type: text/plain\r\nContent-Length: {len(told)}\r\n\r\n"
                connection.sendall(head.encode() + (b"" if seen.method == b"HEAD" else told))
        except Malformed as error:
            with self.lock:
                self.malformed.append(f"{error}: {reading.recent()!r}")
        except (Gone, OSError):
            pass
        finally:
            with self.lock:
                self._open.discard(connection)
            connection.close()

    def _request(self, reading):
        head = reading.head()
        first, *lines = head.split(b"\r\n")
        line = REQUEST_LINE.fullmatch(first)
        if not line:
            raise Malformed("no request line")
        fields = []
        for each in lines:
            field = FIELD.fullmatch(each)
            if not field:
                raise Malformed("no field line")
            fields.append((field.group(1).lower(), field.group(2)))
        with self.lock:
            seen = Seen(len(self.requests), line.group(1), line.group(2), fields)
            self.requests.append(seen)
        codings = [value for name, value in fields if name == b"transfer-encoding"]
        lengths = [value for name, value in fields if name == b"content-length"]
        if len(codings) + len(lengths) > 1:
            raise Malformed("two framings")
        if codings:
            if codings[0].lower() != b"chunked":
                raise Malformed("another coding than chunked")
            seen.body = reading.chunks()
        elif lengths:
            if not LENGTH.fullmatch(lengths[0]):
                raise Malformed("no length")
            seen.body = reading.exactly(int(lengths[0]))
        seen.whole = True
        return seen


class Reading:
    """Takes a connection's bytes apart."""

    def __init__(self, connection):
        self._connection = connection
        self._rest = b""
        self._taken = b""

    def recent(self):
        """The last bytes, for a report."""
        return (self._taken + self._rest)[-600:]

    def _more(self):
        piece = self._connection.recv(PIECE)
        if not piece:
            raise Gone
        self._rest += piece

    def _take(self, count):
        taken, self._rest = self._rest[:count], self._rest[count:]
        self._taken = (self._taken + taken)[-600:]
        return taken

    def _until(self, end, limit):
        while (at := self._rest.find(end)) < 0:
            if len(self._rest) > limit:
                raise Malformed(f"no {end!r} within {limit} bytes")
            self._more()
        return self._take(at + len(end))[: -len(end)]

    def head(self):
        while not self._rest:
            self._more()
        # Garbage that never ends a head would otherwise wait here unseen until the connection closes.
        if not re.match(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]", self._rest):
            raise Malformed("no request begins so")
        try:
            return self._until(b"\r\n\r\n", HEAD_BYTES)
        except Gone:
            raise Malformed("a head without an end") from None

    def exactly(self, count):
        while len(self._rest) < count:
            self._more()
        return self._take(count)

    def chunks(self):
        whole = []
        while True:
            size = self._until(b"\r\n", 64)
            if not CHUNK_SIZE.fullmatch(size):
                raise Malformed("no chunk size")
            if int(size, 16) == 0:
                break
            whole.append(self.exactly(int(size, 16)))
            if self.exactly(2) != b"\r\n":
                raise Malformed("a chunk longer than its size")
        if self.exactly(2) != b"\r\n":
            raise Malformed("trailers, which nobody here sent")
        return b"".join(whole)
