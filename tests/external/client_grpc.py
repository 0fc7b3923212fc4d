"""grpcio on both ends of an h2c tunnel: every kind of call, trailers-only answers, deadlines, cancellation."""

import queue
import threading
from concurrent import futures
from contextlib import contextmanager

import grpc

from support import case, check, equal

SERVICE = "adit.external.Echo"
STREAM_MESSAGES = 50


class Server:
    """Handlers without generated code: messages are the bytes themselves."""

    def __init__(self):
        self.hanging = queue.Queue()
        self.over = queue.Queue()
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Many": grpc.unary_stream_rpc_method_handler(self.many),
            "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
        }
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, kinds),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def unary(self, request, context):
        context.set_trailing_metadata((("x-trailer", "reached"), ("x-octets-bin", b"\x00\xff")))
        return request

    def many(self, request, context):
        for number in range(int(request)):
            yield b"%d" % number
        context.set_trailing_metadata((("x-trailer", "after the stream"),))

    def collect(self, requests, context):
        return b",".join(requests)

    def chat(self, requests, context):
        for request in requests:
            yield b"re: " + request

    def refuse(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100 % ü")

    def hang(self, request, context):
        over = threading.Event()
        context.add_callback(over.set)
        self.hanging.put(request)
        self.over.put((request, over.wait(15)))
        return b""


@contextmanager
def through_tunnel(world):
    """A server, published by `adit forward --http-version h2c`, and a channel to it from outside."""
    server = Server()
    try:
        tunnel = world.forward(server.port, "--http-version", "h2c")
        credentials = grpc.ssl_channel_credentials(world.ca.read_bytes())
        options = [("grpc.ssl_target_name_override", tunnel.host), ("grpc.default_authority", f"{tunnel.host}:{tunnel.port}")]
        with grpc.secure_channel(f"ipv4:127.0.0.1:{tunnel.port}", credentials, options) as channel:
            grpc.channel_ready_future(channel).result(10)
            yield server, channel
    finally:
        server.server.stop(0).wait(5)


@case("grpc-unary", 40)
def unary(world):
    with through_tunnel(world) as (_, channel):
        call = channel.unary_unary(f"/{SERVICE}/Unary")
        for size in (0, 1, 70_000, 1 << 20):
            answer, told = call.with_call(bytes(size), timeout=10, metadata=(("x-asked", "yes"),))
            equal("length of the answer", len(answer), size)
            trailers = dict(told.trailing_metadata())
            equal("trailer", trailers.get("x-trailer"), "reached")
            equal("binary trailer", trailers.get("x-octets-bin"), b"\x00\xff")


@case("grpc-streams", 40)
def streams(world):
    with through_tunnel(world) as (_, channel):
        call = channel.unary_stream(f"/{SERVICE}/Many")(b"%d" % STREAM_MESSAGES, timeout=10)
        equal("server stream", list(call), [b"%d" % n for n in range(STREAM_MESSAGES)])
        equal("its trailer", dict(call.trailing_metadata()).get("x-trailer"), "after the stream")
        words = [b"w%d" % n for n in range(STREAM_MESSAGES)]
        equal("client stream", channel.stream_unary(f"/{SERVICE}/Collect")(iter(words), timeout=10), b",".join(words))
        # Each message is sent only once the answer to the last has come: both directions are open at once.
        sending = queue.Queue()
        chat = channel.stream_stream(f"/{SERVICE}/Chat")(iter(sending.get, None), timeout=10)
        for word in words:
            sending.put(word)
            equal("answer in a conversation", next(chat), b"re: " + word)
        sending.put(None)
        equal("end of the conversation", list(chat), [])


@case("grpc-trailers-only", 40)
def trailers_only(world):
    with through_tunnel(world) as (_, channel):
        try:
            channel.unary_unary(f"/{SERVICE}/Refuse")(b"", timeout=10)
        except grpc.RpcError as error:
            equal("code", error.code(), grpc.StatusCode.FAILED_PRECONDITION)
            equal("details", error.details(), "not now: 100 % ü")
        else:
            check(False, "a refused call succeeded")
        try:
            channel.unary_unary(f"/{SERVICE}/Nothing")(b"", timeout=10)
        except grpc.RpcError as error:
            equal("code of an unknown method", error.code(), grpc.StatusCode.UNIMPLEMENTED)
        else:
            check(False, "an unknown method answered")


@case("grpc-deadline", 60)
def deadline(world):
    """A call that runs out of time, or is cancelled, ends at both ends: the server learns of it through the tunnel."""
    with through_tunnel(world) as (server, channel):
        call = channel.unary_unary(f"/{SERVICE}/Hang")
        try:
            call(b"late", timeout=0.5)
        except grpc.RpcError as error:
            equal("code", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
        else:
            check(False, "a call without an answer succeeded")
        equal("call the server ended", server.over.get(timeout=20), (b"late", True))
        server.hanging.get(timeout=5)
        # With a deadline far away, so that only the reset can tell the server.
        pending = call.future(b"cancelled", timeout=40)
        equal("call the server works on", server.hanging.get(timeout=10), b"cancelled")
        pending.cancel()
        equal("call the server ended after a cancel", server.over.get(timeout=20), (b"cancelled", True))
