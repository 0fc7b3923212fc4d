"""curl and h2load: HTTP/1.1 and HTTP/2 as the two most used command-line clients speak them."""

import hashlib
import json
import re
import statistics
import subprocess
import time

from origin import DOCUMENT
from support import Failed, case, check, equal, run, tool

UPLOAD_BYTES = 64 << 20
EVENTS = 20


def curl(world, tunnel, path, *flags, version="--http1.1", seconds=20, stdin=None, ok=(0,)):
    """One transfer; returns body, and what curl says of it."""
    argv = [tool("curl"), "--silent", "--show-error", version, "--cacert", world.ca, "--max-time", str(seconds)]
    argv += ["--resolve", f"{tunnel.host}:{tunnel.port}:127.0.0.1", "--write-out", "%{stderr}\n%{json}", *flags]
    done = run([*argv, tunnel.url + path], seconds=seconds + 5, stdin=stdin, ok=ok)
    facts = re.search(rb"\{.*\}\s*$", done.stderr, re.S)
    return done.stdout, json.loads(facts.group(0)) if facts else {}


def page(world, version, spoken):
    tunnel = world.tunnel()
    body, facts = curl(world, tunnel, "/", version=version)
    equal("status", facts["response_code"], 200)
    equal("version", facts["http_version"], spoken)
    check(b"external origin" in body, "the page did not come through")
    body, facts = curl(world, tunnel, "/echo?a=1&b=%20", "--data", "some text", version=version)
    told = json.loads(body)
    equal("method", told["method"], "POST")
    equal("path", told["path"], "/echo?a=1&b=%20")
    equal("body", told["body"], "some text")
    headers = told["headers"]
    equal("x-forwarded-proto", headers.get("x-forwarded-proto"), "https")
    equal("x-forwarded-for", headers.get("x-forwarded-for"), "127.0.0.1")
    check("forwarded" in headers, "no Forwarded header reached the origin")
    check(headers.get("host", "").startswith(tunnel.host), f"the origin saw host {headers.get('host')!r}")


@case("curl-h1", 30)
def http1(world):
    page(world, "--http1.1", "1.1")


@case("curl-h2", 30)
def http2(world):
    page(world, "--http2", "2")


@case("curl-continue", 30)
def expect_continue(world):
    """The 100 arrives before the body is sent; without one curl would wait its full `--expect100-timeout`."""
    tunnel, body = world.tunnel(), b"x" * (2 << 20)
    flags = ["-X", "PUT", "-H", "Expect: 100-continue", "--expect100-timeout", "15", "-T", "-", "-v"]
    started = time.monotonic()
    argv = [tool("curl"), "--silent", "--http1.1", "--cacert", world.ca, "--max-time", "25", *flags]
    argv += ["--resolve", f"{tunnel.host}:{tunnel.port}:127.0.0.1", tunnel.url + "/upload"]
    done = run(argv, stdin=body, seconds=30)
    equal("answer", done.stdout.decode(), f"{len(body)} {hashlib.sha256(body).hexdigest()}")
    check(b"HTTP/1.1 100 Continue" in done.stderr, "no 100 Continue reached curl")
    check(time.monotonic() - started < 14, "the body was sent only after curl had given up waiting")


@case("curl-head-range", 30)
def head_and_range(world):
    tunnel = world.tunnel()
    for version in ("--http1.1", "--http2"):
        body, facts = curl(world, tunnel, "/range", "--head", version=version)
        equal("status of HEAD", facts["response_code"], 200)
        check(b"content-length: %d" % len(DOCUMENT) in body.lower(), "HEAD lost the length")
        body, facts = curl(world, tunnel, "/range", "--range", "8000-8015", version=version)
        equal("status of a range", facts["response_code"], 206)
        equal("range", body, DOCUMENT[8000:8016])
        body, _ = curl(world, tunnel, "/range", "--range", "-8", version=version)
        equal("last bytes", body, DOCUMENT[-8:])


@case("curl-upload", 90)
def upload(world):
    """64 MiB up, over both versions, arrive whole."""
    tunnel = world.tunnel()
    file = world.scratch / "upload"
    block = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    with file.open("wb") as out:
        for _ in range(UPLOAD_BYTES // len(block)):
            out.write(block)
            digest.update(block)
    rates = []
    try:
        for version in ("--http1.1", "--http2"):
            body, facts = curl(world, tunnel, "/upload", "-T", str(file), version=version, seconds=40)
            equal("answer", body.decode(), f"{UPLOAD_BYTES} {digest.hexdigest()}")
            rates.append(f"{facts['speed_upload'] / 1e6:.0f} MB/s on {version.strip('-')}")
    finally:
        file.unlink()
    return ", ".join(rates)


@case("curl-early-answer", 40)
def early_answer(world):
    """An origin that refuses an upload without reading it: the visitor gets that answer, not a broken connection."""
    tunnel = world.tunnel()
    for version in ("--http1.1", "--http2"):
        body, facts = curl(
            world, tunnel, "/refuse", "-X", "PUT", "-H", "Expect:", "-T", "-", version=version, stdin=bytes(8 << 20), ok=None
        )
        equal(f"status on {version}", facts.get("response_code"), 413)


@case("curl-download-abort", 30)
def download_abort(world):
    """A visitor that goes away in the middle of a download is noticed by the origin."""
    tunnel = world.tunnel()
    for version in ("--http1.1", "--http2"):
        curl(world, tunnel, f"/bytes/{1 << 30}", "--max-filesize", "1", version=version, ok=None)
        argv = [tool("curl"), "--silent", version, "--cacert", world.ca, "--output", "-", "--limit-rate", "1M"]
        argv += ["--resolve", f"{tunnel.host}:{tunnel.port}:127.0.0.1", f"{tunnel.url}/bytes/{1 << 30}"]
        with subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
            client.stdout.read(1 << 16)
            client.kill()
        try:
            world.origin().gone.get(timeout=10)
        except Exception as error:
            raise Failed(f"the origin went on sending after the visitor had gone ({version})") from error


@case("curl-sse", 40)
def server_sent_events(world):
    """Each event reaches the visitor on its own; the time from its write at the origin to its arrival is a figure, no bar."""
    tunnel, said = world.tunnel(), []
    for version in ("--http1.1", "--http2"):
        argv = [tool("curl"), "--silent", "--no-buffer", version, "--cacert", world.ca, "--max-time", "30"]
        argv += ["--resolve", f"{tunnel.host}:{tunnel.port}:127.0.0.1", tunnel.url + "/live"]
        took = []
        with subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
            for number in range(EVENTS):
                written = world.origin().send_live(number)
                equal("event", client.stdout.readline(), b"data: %d\n" % number)
                took.append((time.monotonic() - written) * 1e3)
                equal("end of event", client.stdout.readline(), b"\n")
            world.origin().send_live("end")
            equal("last event", client.stdout.read(), b"data: end\n\n")
            equal("exit code", client.wait(10), 0)
        said.append(f"{version.strip('-')}: first {took[0]:.1f} ms, median {statistics.median(took):.1f} ms, worst {max(took):.1f} ms")
    return "; ".join(said)


@case("curl-unknown-host", 20)
def unknown_host(world):
    """A host under the wildcard that nobody publishes gets an answer of its own and disturbs nothing."""
    tunnel = world.tunnel()
    other = f"nobody-{tunnel.host}"
    argv = [tool("curl"), "--silent", "--cacert", world.ca, "--max-time", "10", "--write-out", "%{http_code}", "--output", "/dev/null"]
    done = run([*argv, "--resolve", f"{other}:{tunnel.port}:127.0.0.1", f"https://{other}:{tunnel.port}/"])
    equal("status", done.stdout.decode(), "404")
    _, facts = curl(world, tunnel, "/")
    equal("status of the published one", facts["response_code"], 200)


@case("curl-plain-connect", 20)
def plain_connect(world):
    """CONNECT is not served yet and says so."""
    tunnel = world.tunnel()
    argv = [tool("curl"), "--silent", "--max-time", "10", "--proxytunnel", "--proxy-cacert", world.ca, "--write-out", "%{http_connect}"]
    argv += ["--resolve", f"{tunnel.host}:{tunnel.port}:127.0.0.1", "--proxy", f"https://{tunnel.host}:{tunnel.port}"]
    done = run([*argv, "http://127.0.0.1:1/"], ok=None)
    equal("status", done.stdout.decode()[-3:], "501")


@case("h2load", 60)
def h2load(world):
    """Many streams on few connections: all answered, none lost."""
    tunnel = world.tunnel()
    argv = [tool("h2load", package="nghttp2-client"), "-n", "4000", "-c", "4", "-m", "32", "-t", "1"]
    argv += ["--connect-to", f"127.0.0.1:{tunnel.port}", f"{tunnel.url}/range"]
    out = run(argv, seconds=50).stdout.decode()
    check("4000 succeeded, 0 failed, 0 errored, 0 timeout" in out, f"h2load: {out[-600:]}")
    equal("2xx", re.search(r"status codes: (\d+) 2xx", out).group(1), "4000")
    return re.search(r"finished in [^,]+, ([\d.]+ req/s)", out).group(1)
