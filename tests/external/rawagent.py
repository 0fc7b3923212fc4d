"""A bare client of the agent protocol, `rstrm/1`: enough to publish a name and be gone."""

import contextlib
import socket
import struct

from support import Failed

ALPN = "rstrm/1"
PROTOCOL_VERSION = "1.4.5"
FRAME_BYTES_MAX = 65_535
ANSWER_SECONDS = 10.0

# Fields of the envelope.
OPEN_CHANNEL_REQ, OPEN_CHANNEL_RSP, OPEN_TUNNEL_REQ, OPEN_TUNNEL_RSP = 1, 2, 5, 6
# Fields of the answers: what was asked for, or why not.
CHANNEL_OK, TUNNEL_OK = 1, 2


def varint(number):
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    """A length-delimited protobuf field."""
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def wrapped(number, text):
    """A field of a wrapper type."""
    return field(number, field(1, text))


def fields(data):
    """The length-delimited fields of a message, last one of a number wins; other types are passed over."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            number()
        elif tag & 7 == 2:
            length = number()
            found[tag >> 3] = data[at : at + length]
            at += length
        else:
            at += 8 if tag & 7 == 1 else 4
    return found


class RawAgent:
    """A control channel with one published HTTP tunnel, until `drop`."""

    def __init__(self, context, port, token, hostname):
        raw = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS)
        self._tls = context.wrap_socket(raw, server_hostname="localhost")
        try:
            details = wrapped(1, "adit-external") + wrapped(6, token) + wrapped(7, PROTOCOL_VERSION)
            self._say(OPEN_CHANNEL_REQ, field(1, details))
            self._hear(OPEN_CHANNEL_RSP, CHANNEL_OK)
            properties = wrapped(4, "bytestream") + wrapped(6, "http") + wrapped(22, hostname)
            self._say(OPEN_TUNNEL_REQ, field(1, "1") + field(2, properties))
            self.hostname = fields(fields(self._hear(OPEN_TUNNEL_RSP, TUNNEL_OK))[22])[1].decode()
        except BaseException:
            self.drop()
            raise

    def drop(self, reset=False):
        """Lets go without a word, as a process that was killed or a machine that lost its power."""
        if reset:
            reset_on_close(self._tls)
        self._tls.close()

    def _say(self, kind, message):
        body = field(kind, message)
        self._tls.sendall(struct.pack(">I", len(body)) + body)

    def _hear(self, kind, wanted):
        """The part `wanted` of the next message of a kind; other kinds are passed over."""
        while True:
            (length,) = struct.unpack(">I", self._exactly(4))
            if length > FRAME_BYTES_MAX:
                raise Failed(f"a frame of {length} bytes")
            message = fields(self._exactly(length))
            if kind in message:
                answer = fields(message[kind])
                if wanted not in answer:
                    raise Failed(f"the engine refused: {answer}")
                return answer[wanted]

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self._tls.recv(count - len(data))
            if not piece:
                raise Failed("the engine closed the control channel")
            data += piece
        return data


def reset_on_close(connection):
    """From now on closing discards everything and tells the peer by RST."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
