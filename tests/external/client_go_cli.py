"""The published Go CLI with a context of its own that is linked to no control plane."""

import json
import os
import re
import shutil

from client_curl import curl
from support import Failed, Refused, Skip, case, check, equal, once, run, shorten, tool, wait_for
from world import Tunnel, interrupt

PACKAGE = "github.com/rstreamlabs/rstream-go/cmd/rstream@latest"


def go_install(name, build):
    """Builds something with Go once; what the module proxy does not hand out is a skip that says so."""
    go = tool("go", package="golang")

    def with_environment(directory):
        env = dict(os.environ, GOBIN=str(directory), GOFLAGS="-modcacherw", CGO_ENABLED="0", GOTOOLCHAIN="local")
        build(go, directory, env)

    try:
        return once(name, with_environment)
    except Failed as error:
        kind = Refused if "403 Forbidden" in str(error) else Skip
        raise kind(f"cannot be installed: {shorten(str(error), 400)}") from error


def program():
    """`rstream` as it is on this machine, else the newest one, built from its module."""
    found = shutil.which("rstream")
    if found:
        return found
    directory = go_install("go-cli", lambda go, _, env: run([go, "install", PACKAGE], env=env, seconds=400))
    return directory / "rstream"


class Cli:
    """The CLI with a scratch configuration that holds one unlinked context."""

    def __init__(self, world):
        self.path = program()
        self.env = world.agent_environment(RSTREAM_CONFIG=str(world.scratch / "rstream" / "config.yaml"))
        if not (world.scratch / "rstream").exists():
            token = world.scratch / "rstream.token"
            token.touch(0o600)
            token.write_text(world.engine().token)
            argv = ["context", "create", "edge", "--engine", world.engine().address, "--token-file", token]
            self.run(*argv, "--engine-tls-ca-file", world.ca, "--no-api-url", "--default")

    def run(self, *argv, **options):
        return run([self.path, *argv], env=self.env, **options)


def lines_of(line):
    """A line of `forward -o json` as an object."""
    try:
        return json.loads(line)
    except ValueError:
        return {}


def forwarding(world, cli, *flags):
    argv = [cli.path, "forward", f"127.0.0.1:{world.origin().port}", "-o", "json", *flags]
    agent = world.start(argv, env=cli.env)

    def up(line):
        status = lines_of(line)
        return status if status.get("status") == "online" and status.get("forwarding") else None

    return agent, Tunnel(agent.line("an online tunnel", up))


@case("go-cli-forward", 480)
def forward(world):
    """`forward` serves a page that curl fetches; a stream shows up in its output; Ctrl-C ends it with 0."""
    cli = Cli(world)
    agent, tunnel = forwarding(world, cli, "--name", "go-forward")
    for version in ("--http1.1", "--http2"):
        body, facts = curl(world, tunnel, "/", version=version)
        equal("status", facts["response_code"], 200)
        check(b"external origin" in body, "the page did not come through")
    agent.line("a stream with its source", lambda line: lines_of(line).get("source_ip") == "127.0.0.1")
    equal("exit code after Ctrl-C", interrupt(agent), 0)


@case("go-cli-forward-text", 60)
def forward_text(world):
    cli = Cli(world)
    agent = world.start([cli.path, "forward", f"127.0.0.1:{world.origin().port}", "-o", "text"], env=cli.env)
    address = agent.line("the forwarding address", lambda line: re.search(r"forwarding\s+(https://\S+)", line)).group(1)
    _, facts = curl(world, Tunnel({"forwarding": address}), "/")
    equal("status", facts["response_code"], 200)


@case("go-cli-nc", 60)
def netcat(world):
    """A private tunnel by `nc -L`, dialled by `nc`: what goes in comes back."""
    cli = Cli(world)
    target = f"127.0.0.1:{world.origin().port}"
    listener = world.start([cli.path, "nc", "-L", "rstrm://go-nc", "-R", target], env=cli.env)
    request = b"GET /range HTTP/1.1\r\nHost: x\r\nRange: bytes=0-7\r\nConnection: close\r\n\r\n"

    def answered():
        check(listener.alive(), f"nc -L ended: {listener.log()}")
        done = cli.run("nc", "rstrm://go-nc", stdin=request, ok=None, seconds=15)
        return done.returncode == 0 and done.stdout

    check(wait_for("an answer through nc", answered).endswith(b"0000000\n"), "other bytes than the origin sends")


@case("go-cli-lists", 60)
def lists(world):
    cli = Cli(world)
    forwarding(world, cli, "--name", "go-listed", "--label", "team=external")
    tunnels = json.loads(cli.run("tunnel", "list", "-o", "json").stdout)
    check(any(t.get("name") == "go-listed" for t in tunnels), f"not in the list: {shorten(tunnels)}")
    found = json.loads(cli.run("tunnel", "list", "--filter", "labels.team=external", "-o", "json").stdout)
    equal("filtered by a label", [t.get("name") for t in found], ["go-listed"])
    check(b"go-listed" in cli.run("tunnel", "list").stdout, "not in the table")
    clients = json.loads(cli.run("client", "list", "-o", "json").stdout)
    check(any(c.get("id") == found[0]["client_id"] for c in clients), f"no such client: {shorten(clients)}")


@case("go-cli-doctor", 60)
def doctor(world):
    """On an unlinked context: exit code 0, and nothing that concerns this engine fails."""
    # engine-api §12 case 16
    report = json.loads(Cli(world).run("doctor", "-o", "json").stdout)
    states = {c["name"]: c["status"] for c in report["checks"]}
    equal("failed checks", [name for name, status in states.items() if status == "fail"], [])
    for name in ("token", "dns", "tls", "tunnel_transport"):
        equal(f"check {name}", states.get(name), "pass")
    return ", ".join(f"{name} {status}" for name, status in states.items() if status != "pass")
