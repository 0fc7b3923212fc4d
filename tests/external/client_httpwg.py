"""httpwg-cli: conformance to RFC 9113 of the HTTP/2 that the engine speaks to visitors."""

import asyncio
import os
import re
import shutil
import ssl
import threading

from support import CACHE, Failed, Skip, case, check, once, run, tail

VERSION = "0.2.5"
TOTAL = 107
WANTED = 104
# The suite waits a second for each frame, which a busy machine may miss: a case is missed only if it is missed each time.
ROUNDS = 3

# Cases of the suite that this engine does not pass, each with the reason. A name is what stands behind the last "::".
EXPECTED_MISSES = {
    "invalid header block fragment": "refused, but h2 names PROTOCOL_ERROR where the suite wants COMPRESSION_ERROR",
    "sends headers frame with pseudo header in trailer": "h2 drops pseudo-header fields of trailers without a word",
    "sends headers frame with te trailers": "the suite wants status 200 for POST /, which the engine's own host does not serve",
}


def suite():
    cargo = shutil.which("cargo")
    if not cargo:
        raise Skip("cargo is missing, which installs httpwg-cli")

    def build(directory):
        env = dict(os.environ, CARGO_TARGET_DIR=str(CACHE / "httpwg-build"))
        argv = [cargo, "install", "--locked", "--quiet", "--version", VERSION, "--root", directory, "httpwg-cli"]
        run(argv, env=env, seconds=560)
        shutil.rmtree(CACHE / "httpwg-build", ignore_errors=True)

    try:
        return once("httpwg", build) / "bin" / "httpwg"
    except Failed as error:
        raise Skip(f"httpwg-cli {VERSION} could not be installed: {error}") from error


class TlsFront:
    """The suite speaks cleartext HTTP/2 only: a plain port in front of the engine's TLS port, byte for byte, ALPN h2."""

    def __init__(self, world):
        self.context = world.tls("h2")
        self.upstream = world.engine().port
        self.name = "localhost"
        self.port = 0
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        if not ready.wait(10):
            raise Failed("the TLS front did not come up")

    def _run(self, ready):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self.loop.close()

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    async def _serve(self, reader, writer):
        try:
            up_reader, up_writer = await asyncio.open_connection(
                "127.0.0.1", self.upstream, ssl=self.context, server_hostname=self.name
            )
        except (OSError, ssl.SSLError):
            writer.close()
            return
        ends = [asyncio.ensure_future(self._copy(reader, up_writer)), asyncio.ensure_future(self._copy(up_reader, writer))]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            up_writer.close()
            writer.close()

    async def _copy(self, reader, writer):
        try:
            while piece := await reader.read(64 * 1024):
                writer.write(piece)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass


@case("httpwg-cli", 700)
def conformance(world):
    """The suite asks for `http://localhost/`, so it meets the engine's own host; the HTTP/2 in front is that of every tunnel."""
    program = suite()
    front = TlsFront(world)
    started, passed = set(), set()
    try:
        argv = [program, "--address", f"127.0.0.1:{front.port}", "--frame-timeout", "1000", "--connect-timeout", "2000", "-v"]
        for _ in range(ROUNDS):
            done = run(argv, seconds=120, ok=None, env=dict(os.environ, RUST_LOG="error", NO_COLOR="1", SEQUENTIAL="1"))
            text = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr.decode("utf-8", "replace"))
            # A case that panics prints neither verdict, so what did not pass is what was started and not reported as passed.
            started |= set(re.findall(r"Running test: (.+)", text))
            passed |= set(re.findall(r"Test passed: (.+)", text))
            check(len(started) == TOTAL, f"{len(started)} cases were started, not {TOTAL}: {tail(text)}")
            failed = sorted(name.rsplit("::", 1)[-1].strip() for name in started - passed)
            surprises = [name for name in failed if name not in EXPECTED_MISSES]
            if not surprises:
                break
    finally:
        front.close()
    check(not surprises, f"{len(passed)} of {TOTAL}; missed {ROUNDS} times without a known reason: {'; '.join(surprises)}")
    check(len(passed) >= WANTED, f"{len(passed)} of {TOTAL}, below the bar of {WANTED}")
    known = "; ".join(f"{name}: {EXPECTED_MISSES[name]}" for name in failed)
    return f"{len(passed)} of {TOTAL}" + (f", misses: {known}" if known else "")
