"""What somebody does who follows the README: `adit dev`, and then an engine and an agent on two machines."""

import os
import re
import signal
import time

from client_chromium import dev
from support import ADIT, Failed, case, check, equal, free_port, listening, run, tail, wait_for


def plain_environment(**more):
    """The caller's environment without any setting of ours or of another engine's client."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("ADIT_", "RSTREAM_", "SSL_CERT"))} | more


def as_it_stands(world, line, where):
    """Runs a printed curl line unchanged; only curl's own start-up file makes it tell the status."""
    home = world.scratch / "curl-home"
    home.mkdir(exist_ok=True)
    (home / ".curlrc").write_text('write-out = "\\n%{http_code}"\nmax-time = 15\n')
    done = run(["bash", "-c", line], cwd=where, env=plain_environment(CURL_HOME=str(home)), ok=None)
    check(done.returncode == 0, f"`{line}` exited {done.returncode}: {tail(done.stderr)}")
    return done.stdout.decode("utf-8", "replace").rsplit("\n", 1)


def curl_line(line):
    found = re.search(r"\bcurl\s+\S.*$", re.sub(r"\x1b\[[0-9;]*m", "", line))
    return found.group(0).rstrip() if found else None


@case("dev-demo", 60)
def dev_demo(world):
    """`adit dev`: the curl line it prints gives 200, the request appears in its output, Ctrl-C drains and ends with 0."""
    daemon, host, _, where = dev(world, "dev-demo")
    line = daemon.line("a curl line", curl_line)
    body, status = as_it_stands(world, line, where)
    equal("status", status, "200")
    check(body, "the demo site answered with nothing")
    daemon.line("a line for the request", lambda text: re.search(r"\bGET\b.*\b200\b", text))
    check((where / ".adit").is_dir(), "no .adit directory")
    for path in (where / ".adit").rglob("*"):
        if "key" in path.name or "secret" in path.name:
            equal(f"mode of {path.name}", oct(path.stat().st_mode & 0o077), "0o0")
    equal("exit code after Ctrl-C", daemon.stop(how=signal.SIGINT), 0)


@case("dev-port", 60)
def dev_port(world):
    """`adit dev PORT` publishes what listens there, and a second `adit dev` beside the first takes the next free port."""
    origin = str(world.origin().port)
    first, _, port, where = dev(world, "dev-port", origin)
    body, status = as_it_stands(world, first.line("a curl line", curl_line), where)
    equal("status", status, "200")
    check("external origin" in body, "the page did not come through")
    _, _, other, _ = dev(world, "dev-port-two", origin)
    check(other != port, "two `adit dev` claim one port")


@case("dev-nothing-there", 60)
def dev_nothing_there(world):
    """Nothing listens on the port: the visitor gets a 502, and the agent says in a line what is the matter."""
    daemon, _, _, where = dev(world, "dev-nothing", str(free_port()))
    _, status = as_it_stands(world, daemon.line("a curl line", curl_line), where)
    equal("status", status, "502")
    check(daemon.alive(), "adit dev gave up")


@case("two-machines", 90)
def two_machines(world):
    """`engine init`, `engine`, `forward`, each from a directory of its own; the agent comes back after the engine was killed."""
    server, laptop = world.scratch / "vps", world.scratch / "laptop"
    server.mkdir()
    laptop.mkdir()
    init = run([ADIT, "engine", "init", "--host", "localhost", "--dir", "."], cwd=server, env=plain_environment())
    told = (init.stdout + init.stderr).decode()
    check("adit forward" in told, f"`engine init` names no command for the agent: {tail(told)}")
    config = server / "engine.toml"
    check("#" in config.read_text(), "the configuration is not commented")
    secrets = [p for p in server.rglob("*") if p.is_file() and p.stat().st_mode & 0o077 == 0]
    check(secrets, "no file is readable by its owner alone, so where is the secret?")
    port = free_port()
    certificate = {
        "ADIT_CERTIFICATES__FILES__CERT": str(world.scratch / "cert.pem"),
        "ADIT_CERTIFICATES__FILES__KEY": str(world.scratch / "key.pem"),
    }
    settings = plain_environment(ADIT_LISTEN__HTTPS=f"127.0.0.1:{port}", **certificate)

    def engine():
        daemon = world.start([ADIT, "engine", "--config", "engine.toml"], cwd=server, env=settings)
        wait_for("the engine to listen", lambda: daemon.alive() and listening(port))
        return daemon

    running = engine()
    token = run([ADIT, "engine", "token", "--config", "engine.toml"], cwd=server, env=settings).stdout
    (laptop / "token").touch(0o600)
    (laptop / "token").write_bytes(token)
    (laptop / "ca.pem").write_bytes(world.ca.read_bytes())
    argv = [ADIT, "forward", str(world.origin().port), "--engine", f"localhost:{port}", "--token-file", "token", "--ca-file", "ca.pem"]
    agent = world.start([*argv, "-o", "text"], cwd=laptop, env=plain_environment())
    address = r"https://([a-z0-9-]+\.t\.localhost):(\d+)"
    host = agent.line("the public URL", lambda line: re.search(address, line)).group(1)

    def status():
        url = f"https://{host}:{port}/"
        shown = ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "5"]
        argv = ["curl", *shown, "--cacert", "ca.pem", "--resolve", f"{host}:{port}:127.0.0.1", url]
        return run(argv, cwd=laptop, ok=None).stdout.decode()

    equal("status", status(), "200")
    running.stop(how=signal.SIGKILL)
    running = engine()
    started = time.monotonic()
    try:
        wait_for("the agent to be back under its name", lambda: status() == "200", seconds=3)
    except Failed as error:
        raise Failed(f"{error}; it says: {agent.log()}") from error
    return f"agent back {time.monotonic() - started:.1f} s after the engine listened again"
