"""The engine under test, its certificates and token, the agents that cases start, and the origin behind them."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import tempfile
import time
from pathlib import Path

from origin import Origin
from support import ADIT, START_SECONDS, Daemon, Failed, check, free_port, listening, run, wait_for

# The only name that every resolver maps to the loopback interface; tunnels live under `*.t.localhost`.
HOST = "localhost"

ENGINE_TOML = """\
[engine]
host = "{host}"

[listen]
https = "127.0.0.1:{port}"
metrics = "127.0.0.1:{metrics_port}"

[certificates]
files = {{ cert = "cert.pem", key = "key.pem" }}

[auth]
jwt-secret = {{ file = "jwt.secret" }}

[admin]
socket = "admin.sock"
"""


class World:
    """Everything that lives longer than a case: made when first asked for, all of it gone after `close`."""

    def __init__(self):
        self.scratch = Path(tempfile.mkdtemp(prefix="adit-external-"))
        self._engine = None
        self._origin = None
        self._tunnels = {}
        self._of_case = []
        self._certificates()

    def _certificates(self):
        """A development CA of this run and one certificate under it for the engine host and its tunnels."""
        d = self.scratch
        names = f"DNS:{HOST},DNS:*.t.{HOST},DNS:*.mtls.{HOST},IP:127.0.0.1"
        (d / "leaf.ext").write_text(
            f"subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        run(
            ["openssl", "req", "-x509", *new_key, "-keyout", d / "ca.key", "-out", d / "ca.pem", "-days", "2"]
            + ["-subj", "/CN=adit external tests"]
            + ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        )
        run(["openssl", "req", *new_key, "-keyout", d / "key.pem", "-out", d / "leaf.csr", "-subj", f"/CN={HOST}"])
        run(
            ["openssl", "x509", "-req", "-in", d / "leaf.csr", "-CA", d / "ca.pem", "-CAkey", d / "ca.key"]
            + ["-CAcreateserial", "-out", d / "cert.pem", "-days", "2", "-extfile", d / "leaf.ext"]
        )
        (d / "key.pem").chmod(0o600)
        secret = d / "jwt.secret"
        secret.touch(0o600)
        secret.write_text(os.urandom(32).hex())

    @property
    def ca(self):
        return self.scratch / "ca.pem"

    def tls(self, *alpn):
        """A client's TLS settings that trust this run's CA and nothing else."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def engine(self):
        """The running engine; one that a case has killed is replaced, and its tunnels with it."""
        if self._engine is not None and not self._engine.alive():
            for agent, _ in self._tunnels.values():
                agent.stop()
            self._tunnels.clear()
            self._engine.stop()
            self._engine = None
        if self._engine is None:
            self._engine = Engine(self.scratch)
        return self._engine

    def engine_apart(self, name, more, environment, **options):
        """An engine with a folder of its own, settings and environment added, until the case ends."""
        directory = self.scratch / name
        directory.mkdir()
        for file in ("cert.pem", "key.pem", "jwt.secret"):
            shutil.copy2(self.scratch / file, directory / file)
        engine = Engine(directory, more, environment, **options)
        self._of_case.append(engine)
        return engine

    def origin(self):
        if self._origin is None:
            self._origin = Origin()
        return self._origin

    def agent_environment(self, **more):
        """The environment in which our own agent and foreign ones find this engine; nothing of the caller's settings."""
        engine = self.engine()
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ADIT_", "RSTREAM_", "SSL_CERT"))}
        return kept | {
            "HOME": str(self.scratch),
            "ADIT_ENGINE": engine.address,
            "ADIT_TOKEN": engine.token,
            "ADIT_CA_FILE": str(self.ca),
            **more,
        }

    def start(self, argv, **options):
        """A process that ends with the case that started it."""
        options.setdefault("env", self.agent_environment())
        daemon = Daemon(argv, **options)
        self._of_case.append(daemon)
        return daemon

    def forward(self, port, *flags):
        """Publishes a local port through `adit forward` until the case ends; returns what the agent says of the tunnel."""
        agent = self.start([ADIT, "forward", f"127.0.0.1:{port}", "-o", "json", *flags])
        return Tunnel(agent.line("an online tunnel", online))

    def tunnel(self):
        """The origin behind a tunnel that all cases share, with the h1 upstream an agent gets by default."""
        self.engine()
        agent, tunnel = self._tunnels.get("origin", (None, None))
        if agent is None or not agent.alive():
            argv = [ADIT, "forward", f"127.0.0.1:{self.origin().port}", "-o", "json", "--name", "external-origin"]
            agent = Daemon(argv, env=self.agent_environment())
            self._tunnels["origin"] = (agent, None)
            tunnel = Tunnel(agent.line("an online tunnel", online))
            self._tunnels["origin"] = (agent, tunnel)
        return tunnel

    def after_case(self, name):
        for daemon in reversed(self._of_case):
            daemon.stop()
        self._of_case.clear()
        if self._origin is not None:
            self._origin.forget()

    def close(self):
        self.after_case("")
        for agent, _ in self._tunnels.values():
            agent.stop()
        if self._engine is not None:
            self._engine.stop()
        if self._origin is not None:
            self._origin.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Engine(Daemon):
    """`adit engine` on a port of its own, with the configuration a user would write."""

    def __init__(self, scratch, more="", environment=None, seconds=START_SECONDS, checked=False):
        """
        Runs in `scratch`, where the certificate and the secret are; `more` is added to the configuration, which has
        been `checked` before or is now.
        """
        self.port = free_port()
        self.metrics_port = free_port()
        self.config = scratch / "engine.toml"
        self.config.write_text(ENGINE_TOML.format(host=HOST, port=self.port, metrics_port=self.metrics_port) + more)
        if not checked:
            run([ADIT, "engine", "check", "--config", self.config], cwd=scratch, seconds=max(seconds, 30))
        started = time.monotonic()
        super().__init__([ADIT, "engine", "--config", self.config], cwd=scratch, env=os.environ | (environment or {}))
        self.address = f"{HOST}:{self.port}"
        try:
            wait_for("the engine to listen", lambda: self.alive() and listening(self.port), seconds)
        except Failed as error:
            raise Failed(f"{error}: {self.log()}") from error
        self.started_in = time.monotonic() - started
        self.token = run([ADIT, "engine", "token", "--config", self.config], cwd=scratch).stdout.decode().strip()
        check(re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", self.token), "`adit engine token` printed no JWT")

    def ask(self, request):
        """Puts a request to the admin socket, one JSON line each way."""
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(10)
            door.connect(str(self.config.with_name("admin.sock")))
            door.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(door.makefile("rb").readline())

    def metrics(self):
        """What its metrics listener says now."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()


class Tunnel:
    """A published tunnel as its agent reports it: where it is reached, and how each client is told to get there."""

    def __init__(self, status):
        self.id = status.get("tunnel_id", "")
        self.forwarding = status.get("forwarding", "")
        found = re.fullmatch(r"https://([a-z0-9.-]+)(?::(\d+))?", self.forwarding)
        self.host = found.group(1) if found else ""
        self.port = int(found.group(2) or 443) if found else 0
        self.url = self.forwarding


def online(line):
    """The status object of a JSON output line that says the tunnel is up."""
    try:
        status = json.loads(line)
    except ValueError as error:
        raise Failed(f"a line of `-o json` is not JSON: {line!r}") from error
    return status if status.get("status") == "online" and status.get("forwarding") else None


def interrupt(daemon):
    """Ctrl-C; returns the exit code."""
    return daemon.stop(how=signal.SIGINT)
