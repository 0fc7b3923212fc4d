"""Churn: requests, aborted connections, agents that come and go and reloads, twice over; nothing may be left behind."""

import asyncio
import concurrent.futures
import json
import os
import re
import socket
import threading
import time

from rawagent import ALPN, RawAgent, reset_on_close
from support import ADIT, Failed, case, check, run, tool, wait_for
from world import Tunnel, online

# What each of the two halves does, in as many equal slices.
REQUESTS = 100_000
ABORTED_CONNECTIONS = 10_000
AGENT_RECONNECTS = 500
RELOADS = 500
SLICES = 5
# How much more anonymous memory a process may hold in the second half than in the first. It is read after each slice. Now
# and then the allocator gives back some MiB more than usual, so the highest reading of each half counts: what is left
# behind lifts that of the second half by what a whole half leaves.
GROWTH = 0.05
# Threads that open and abort connections.
ABORTERS = 4
# Longest that connections take to be gone after a slice, and for how long then nothing may change, in seconds.
REST_SECONDS, STEADY_SECONDS = 20, 1
UPLOAD_BYTES = 256 * 1024
DOWNLOAD_BYTES = 1024 * 1024

# One worker thread, and an allocator that gives freed pages back at once and takes none in advance: what is read is what is
# held. Otherwise two readings of a process that holds the same differ by a tenth and more.
QUIET = {
    "ADIT_ENGINE__THREADS": "1",
    "TOKIO_WORKER_THREADS": "1",
    "MIMALLOC_PURGE_DELAY": "0",
    "MIMALLOC_ARENA_EAGER_COMMIT": "0",
}

SETTINGS = """
[policy.churn]
filters = [{ use = "trusted-ips", allow = ["127.0.0.0/8", "192.0.2.0"] }]

[project.default]
policies = ["churn"]
"""


class CannedOrigin(asyncio.Protocol):
    """Answers as fast as Python can: a short text, `/big` more of it, an upload once it is whole."""

    SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nchurn"
    BIG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DOWNLOAD_BYTES + bytes(DOWNLOAD_BYTES)

    def __init__(self, transports):
        self._transports = transports
        self._transport = None
        self._rest = b""
        self._body = 0

    def connection_made(self, transport):
        self._transport = transport
        self._transports.add(transport)

    def connection_lost(self, _error):
        self._transports.discard(self._transport)

    def data_received(self, data):
        if self._body:
            taken = min(self._body, len(data))
            self._body -= taken
            data = data[taken:]
            if not self._body:
                self._transport.write(self.SHORT)
        self._rest += data
        while not self._body and (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head, self._rest = self._rest[:end], self._rest[end + 4 :]
            length = re.search(rb"\r\ncontent-length: (\d+)", head, re.I)
            left = int(length.group(1)) if length else 0
            taken = min(left, len(self._rest))
            self._body, self._rest = left - taken, self._rest[taken:]
            if not self._body:
                self._transport.write(self.BIG if b" /big " in head else self.SHORT)


class Serving:
    """A `CannedOrigin` on a thread of its own."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._transports = set()
        serving = self._loop.create_server(lambda: CannedOrigin(self._transports), "127.0.0.1", 0, backlog=1024)
        self._server = self._loop.run_until_complete(serving)
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self._loop.run_forever()
        self._server.close()
        self._loop.close()

    def hang_up(self):
        """Closes the connections that the engine keeps for the next request, as services do after a while."""
        self._loop.call_soon_threadsafe(lambda: [transport.close() for transport in list(self._transports)])

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class Churn:
    """An engine and an agent of its own, and what is done to them."""

    def __init__(self, world, origin):
        self.over = threading.Event()
        self._origin = origin
        self.engine = world.engine_apart("churn", SETTINGS, QUIET)
        self._plain = self.engine.config.read_text()
        environment = world.agent_environment(ADIT_ENGINE=self.engine.address, ADIT_TOKEN=self.engine.token, **QUIET)
        argv = [ADIT, "forward", f"127.0.0.1:{origin.port}", "-o", "json", "--name", "churn"]
        self.agent = world.start(argv, env=environment)
        self.processes = {"engine": self.engine, "agent": self.agent}
        self.tunnel = Tunnel(self.agent.line("an online tunnel", online))
        self._visitors = world.tls("http/1.1")
        self._agents = world.tls(ALPN)

    def slice(self):
        """Agents come and go while connections are aborted; the configuration changes under load and without any."""
        aborted = ABORTED_CONNECTIONS // SLICES // ABORTERS
        reloads = RELOADS // SLICES // 2
        self._together([self.reconnects, *[lambda: self.aborts(aborted)] * ABORTERS])
        self._together([self.requests, lambda: self.reloads(reloads)])
        self.rest()
        # Last, because an allocator gives freed memory back in passing, when it is asked for something.
        self.reloads(reloads)
        self.rest()

    def _together(self, jobs):
        with concurrent.futures.ThreadPoolExecutor(max_workers=len(jobs)) as pool:
            running = [pool.submit(job) for job in jobs]
            try:
                for job in concurrent.futures.as_completed(running):
                    job.result()
            except BaseException:
                self.over.set()
                raise

    def requests(self):
        h2load = tool("h2load", package="nghttp2-client")
        count = REQUESTS // SLICES // 2
        for flags in (["-m", "10"], ["--h1"]):
            argv = [h2load, "-n", count, "-c", "10", "-t", "1", *flags]
            argv += ["--connect-to", f"127.0.0.1:{self.tunnel.port}", self.tunnel.url + "/"]
            out = run(argv, seconds=90).stdout.decode()
            found = re.search(r"status codes: (\d+) 2xx", out)
            check(found and int(found.group(1)) == count, f"h2load: {out[-500:]}")

    def aborts(self, count):
        """In turn: half of the connections are dropped before a request, half during one or after it; all by RST."""
        host = self.tunnel.host.encode()
        get = b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % host
        big = b"GET /big HTTP/1.1\r\nHost: %s\r\n\r\n" % host
        put = b"PUT /up HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n" % (host, UPLOAD_BYTES) + bytes(UPLOAD_BYTES // 4)
        half_head = get[: len(get) // 2]
        kinds = [None, get, b"", put, half_head, get, b"", big]
        for number in range(count):
            if self.over.is_set():
                return
            sent = kinds[number % len(kinds)]
            raw = socket.create_connection(("127.0.0.1", self.tunnel.port), timeout=20)
            reset_on_close(raw)
            if sent is None:
                # The beginning of a TLS record that says it goes on.
                raw.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
                raw.close()
                continue
            with self._visitors.wrap_socket(raw, server_hostname=self.tunnel.host) as tls:
                if sent:
                    tls.sendall(sent)
                if sent in (get, big):
                    check(tls.recv(1024).startswith(b"HTTP/1.1 200 "), "no answer before the abort")

    def reconnects(self):
        for number in range(AGENT_RECONNECTS // SLICES):
            if self.over.is_set():
                return
            end = time.monotonic() + 5
            while True:
                try:
                    agent = RawAgent(self._agents, self.engine.port, self.engine.token, "churned")
                    break
                except Failed:
                    # The engine may not have noticed yet that the one before is gone.
                    if time.monotonic() > end:
                        raise
            check(agent.hostname.startswith("churned."), f"the name became {agent.hostname}")
            agent.drop(reset=number % 2 == 1)

    def reloads(self, count):
        for number in range(count):
            if self.over.is_set():
                return
            text = self._plain.replace('"192.0.2.0"', f'"192.0.2.{number % 250 + 1}"')
            fresh = self.engine.config.with_suffix(".new")
            fresh.write_text(text)
            fresh.rename(self.engine.config)
            answer = self.engine.ask({"request": "reload"})
            check(answer.get("reply") == "reloaded", f"reload: {answer}")

    def rest(self):
        """Waits until nothing is under way any more, and then until what is open stays the same for a while."""

        def quiet():
            gauges = dict(re.findall(r"^(adit_edge_connections|adit_engine_clients) (\d+)$", self.engine.metrics(), re.M))
            return gauges == {"adit_edge_connections": "0", "adit_engine_clients": "1"}

        wait_for("the engine to be quiet", quiet, seconds=REST_SECONDS)
        self._origin.hang_up()
        end, since, last = time.monotonic() + REST_SECONDS, time.monotonic(), None
        while time.monotonic() - since < STEADY_SECONDS:
            now = [descriptors(daemon) for daemon in self.processes.values()]
            if now != last:
                last, since = now, time.monotonic()
            check(time.monotonic() < end, f"descriptors of engine and agent still change: {now}")
            time.sleep(0.2)

    def measured(self):
        """Memory in KiB and open descriptors of each process."""
        return {name: (anonymous_kib(daemon), descriptors(daemon)) for name, daemon in self.processes.items()}


def anonymous_kib(daemon):
    with open(f"/proc/{daemon.process.pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(r"^Anonymous:\s+(\d+) kB$", file.read(), re.M).group(1))


def descriptors(daemon):
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


@case("churn", 400)
def churn(world):
    """After the second half engine and agent hold what they held after the first."""
    origin = Serving()
    churning = None
    try:
        churning = Churn(world, origin)
        churning.rest()
        before, readings, started = churning.measured(), [], time.monotonic()
        for _ in range(2 * SLICES):
            churning.slice()
            readings.append(churning.measured())
        took = time.monotonic() - started
    finally:
        if churning:
            churning.over.set()
        origin.close()
    wrong, said = [], []
    for name, (memory, opened) in before.items():
        first, second = (max(reading[name][0] for reading in half) for half in (readings[:SLICES], readings[SLICES:]))
        # A connection that lingers when a slice ends is no leak: the fewest of each half are compared.
        open_then, open_now = (min(reading[name][1] for reading in half) for half in (readings[:SLICES], readings[SLICES:]))
        each = " ".join(str(reading[name][0]) for reading in readings)
        said.append(
            f"{name} {first} then {second} KiB ({second / first - 1:+.1%}; {memory} before, then {each}), "
            f"descriptors {opened}, {open_then}, {open_now}"
        )
        if second > first * (1 + GROWTH) or open_now > open_then:
            wrong.append(name)
    figures = f"{'; '.join(said)}; {took:.0f} s for {SLICES} slices twice"
    check(not wrong, f"{' and '.join(wrong)} did not come back to what it held: {figures}")
    return figures
