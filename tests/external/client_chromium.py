"""Chromium, driven by playwright-core, on what `adit dev` publishes."""

import base64
import hashlib
import json
import os
import re

from support import ADIT, HERE, Failed, Skip, case, check, equal, once, run, tool

PLAYWRIGHT = "1.65.1"


def playwright():
    npm = tool("npm")
    tool("node", package="nodejs")

    def build(directory):
        run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", directory, f"playwright-core@{PLAYWRIGHT}"], seconds=240)

    try:
        return once("playwright", build)
    except Failed as error:
        raise Skip(f"playwright-core {PLAYWRIGHT} could not be installed: {error}") from error


def key_hash(host, port):
    """What Chromium calls a certificate by: the hash of its public key."""
    openssl = tool("openssl")
    shown = run([openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-servername", host, "-showcerts"], stdin=b"").stdout
    pem = re.search(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", shown, re.S).group(0)
    key = run([openssl, "x509", "-noout", "-pubkey"], stdin=pem).stdout
    der = run([openssl, "pkey", "-pubin", "-outform", "der"], stdin=key).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def dev(world, directory, *argv):
    """Starts `adit dev` in a directory of its own and waits for the public URL that it prints."""
    where = world.scratch / directory
    where.mkdir(exist_ok=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ADIT_", "RSTREAM_"))}
    daemon = world.start([ADIT, "dev", *argv], cwd=where, env=env)
    found = daemon.line("the public URL", lambda line: re.search(r"https://([a-z0-9.-]+\.localhost):(\d+)", line))
    return daemon, found.group(1), int(found.group(2)), where


def visit(world, host, port, script):
    """Loads `/` in a fresh browser that trusts this one certificate and reaches this machine alone."""
    where = playwright()
    asked = {
        "chromium": tool("chromium"),
        "url": f"https://{host}:{port}/",
        "key": key_hash(host, port),
        "root": os.geteuid() == 0,
        "script": script,
    }
    env = dict(os.environ, NODE_PATH=str(where / "node_modules"), HOME=str(world.scratch))
    return json.loads(run([tool("node"), HERE / "browser.cjs", json.dumps(asked)], env=env, seconds=70).stdout)


@case("chromium-demo", 300)
def demo(world):
    """The built-in demo site loads without an error in the console."""
    playwright()
    _, host, port, _ = dev(world, "chromium-demo")
    seen = visit(world, host, port, "null")
    equal("status", seen["status"], 200)
    check(seen["title"], "the demo page has no title")
    equal("errors on the page", seen["errors"], [])
    return f"{seen['protocol']}, {seen['title']}"


@case("chromium-sse-websocket", 300)
def events_and_sockets(world):
    """A page of the origin behind `adit dev PORT` with an EventSource and a WebSocket of its own."""
    playwright()
    _, host, port, _ = dev(world, "chromium-origin", str(world.origin().port))
    seen = visit(world, host, port, "settled")
    equal("status", seen["status"], 200)
    equal("events", seen["texts"]["sse"], "0,1,2")
    equal("socket", seen["texts"]["ws"], "echo.v1: from the page")
    equal("errors on the page", seen["errors"], [])
    return seen["protocol"]
