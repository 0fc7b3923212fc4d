"""Filters in JavaScript and Python, built from source with the tools of their languages, in a whole engine."""

import asyncio
import hashlib
import http.client
import json
import os
import re
import socket
import statistics
import sys
import time

from websockets.exceptions import InvalidStatus

from client_websockets import dial
from support import ADIT, CACHE, HERE, Failed, Skip, case, check, equal, once, run, tool
from world import Tunnel, online

ROOT = HERE.parent.parent
JAVASCRIPT = ROOT / "plugins/examples/js"
PYTHON = ROOT / "plugins/examples/python"
HOSTILE = HERE / "guests"

# How long a large guest may take that has not been compiled before, on a busy machine.
COMPILE_SECONDS = 240

# Exchanges whose memory is measured at once.
CROWD = 8

# Requests that a cost is measured over.
MEASURED = 100


def digest(of):
    return hashlib.sha256(of).hexdigest()[:12]


def javascript(*command, cwd=ROOT):
    """Runs a command with the tools on its path that `package-lock.json` pins."""
    npm = tool("npm")
    tool("node", package="nodejs")
    pinned = [JAVASCRIPT / name for name in ("package.json", "package-lock.json")]

    def build(directory):
        for file in pinned:
            (directory / file.name).write_bytes(file.read_bytes())
        run([npm, "ci", "--silent", "--no-audit", "--no-fund"], cwd=directory, seconds=300)

    try:
        tools = once(f"plugins-js-{digest(b''.join(file.read_bytes() for file in pinned))}", build)
    except Failed as error:
        raise Skip(f"the tools for filters in JavaScript could not be installed: {error}") from error
    path = f"{tools}/node_modules/.bin:{os.environ['PATH']}"
    return run(["env", f"PATH={path}", *command], cwd=cwd, seconds=200)


def python(*command, cwd=ROOT):
    """Runs a command with `componentize-py` on its path as `requirements.txt` pins it."""
    pinned = PYTHON / "requirements.txt"

    def build(directory):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "--target", directory, "-r", pinned], seconds=300)

    try:
        tools = once(f"plugins-python-{digest(pinned.read_bytes())}", build)
    except Failed as error:
        raise Skip(f"the tools for filters in Python could not be installed: {error}") from error
    path = f"{tools}/bin:{os.environ['PATH']}"
    return run(["env", f"PATH={path}", f"PYTHONPATH={tools}", *command], cwd=cwd, seconds=200)


class Edge:
    """An engine with such filters, and a tunnel behind them."""

    def __init__(self, world, name, config):
        state = world.scratch / f"state-{name}"
        state.mkdir()
        environment = {"ADIT_ENGINE__STATE_DIR": str(state)}
        self.engine = world.engine_apart(name, config, environment, seconds=COMPILE_SECONDS)
        # Once more, with what is compiled.
        started = self.engine.started_in
        self.engine.stop()
        self.engine = world.engine_apart(f"{name}-again", config, environment, seconds=COMPILE_SECONDS, checked=True)
        self.started = f"compiled in {started:.1f} s, started again in {self.engine.started_in:.1f} s"
        agent = world.agent_environment(ADIT_ENGINE=self.engine.address, ADIT_TOKEN=self.engine.token)
        forward = [ADIT, "forward", f"127.0.0.1:{world.origin().port}", "-o", "json", "--name", name]
        self.tunnel = Tunnel(world.start(forward, env=agent).line("an online tunnel", online))
        self.world = world
        self.connection = None

    def get(self, path, **fields):
        """Status and body of a request on a connection that is kept."""
        if self.connection is None:
            self.connection = Connection(self.tunnel, self.world.tls("http/1.1"))
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        try:
            self.connection.request("GET", path, headers=fields)
            answer = self.connection.getresponse()
            return answer.status, answer.read().decode()
        except (http.client.HTTPException, OSError):
            self.connection = None
            raise

    def cost(self, path, **fields):
        """Median milliseconds of a request."""
        took = []
        for _ in range(MEASURED):
            started = time.perf_counter()
            status, _ = self.get(path, **fields)
            took.append(time.perf_counter() - started)
            check(status < 500, f"{path}: {status}")
        return statistics.median(took) * 1000

    def told(self, what):
        return self.engine.line(repr(what), lambda line: what in line and line, lines=self.engine.err)


class Connection(http.client.HTTPSConnection):
    """To a tunnel, whatever its name resolves to."""

    def __init__(self, tunnel, context):
        super().__init__(tunnel.host, tunnel.port, timeout=60, context=context)
        self.context = context

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), self.timeout)
        self.sock = self.context.wrap_socket(plain, server_hostname=self.host)


def plugin(name, component, more=""):
    return f'[plugin.{name}]\ncomponent = "{component}"\n{more}\n'


PROJECT = """
[project.default]
policies = ["edge"]
upgrades = []
"""


def measured(edge, **fields):
    """What an exchange costs with a fresh instance, with one that is used again, and without the filter."""
    costs = {kind: edge.cost(f"/{kind}/", **fields) for kind in ("plain", "fresh", "reused")}
    return ", ".join(f"{kind} {cost:.2f} ms" for kind, cost in costs.items()) + " an exchange"


@case("plugin-javascript", 900)
def websocket_origins(world):
    """`ws-origin` in JavaScript: the origin it lists, two that look like it, and none."""
    javascript("npm", "run", "check", cwd=JAVASCRIPT)
    javascript("npm", "run", "build", cwd=JAVASCRIPT)
    component = JAVASCRIPT / "dist/ws_origin_js.wasm"
    kinds = (("fresh", "", "/fresh/*"), ("reused", "reuse = 1000000", "/reused/*"), ("guard", "", "/ws"))
    plugins = [plugin(kind, component, f'stage = "upgrade"\n{more}') for kind, more, _ in kinds]
    filters = [
        f'{{ use = "{kind}", origins = ["https://app.example.com"], when = {{ path = "{path}" }} }}' for kind, _, path in kinds
    ]
    edge = Edge(world, "ws-origin", "".join(plugins) + f"[policy.edge]\nfilters = [{', '.join(filters)}]\n" + PROJECT)

    async def talk():
        async with dial(world, edge.tunnel, origin="https://app.example.com") as socket:
            await socket.send("here")
            equal("echo", await asyncio.wait_for(socket.recv(), 10), "here")
        for origin in ("https://app.example.com.evil.example", "http://app.example.com", None):
            try:
                async with dial(world, edge.tunnel, origin=origin):
                    raise Failed(f"a page of {origin} has a socket")
            except InvalidStatus as answer:
                equal(f"status for {origin}", answer.response.status_code, 403)

    asyncio.run(talk())
    size = component.stat().st_size / (1 << 20)
    return f"{size:.1f} MiB: {edge.started}, {measured(edge)}"


@case("plugin-python", 900)
def keys(world):
    """`api-key` in Python: the right key, a wrong one, none, two; who it is, and a key too often tried."""
    python("sh", "build.sh", cwd=PYTHON)
    component = PYTHON / "dist/api_key_py.wasm"
    key = "key of ada"
    table = f'keys = {{ ada = "{hashlib.sha256(key.encode()).hexdigest()}" }}, tries = 5'
    more = 'stage = "identity"\nestablish-identity = true\n'
    edge = Edge(
        world,
        "api-key",
        plugin("fresh", component, more)
        + plugin("reused", component, more + "reuse = 1000000")
        + f"""[policy.edge]
filters = [
  {{ use = "fresh", {table}, when = {{ path = "/fresh/*" }} }},
  {{ use = "reused", {table}, when = {{ path = "/reused/*" }} }},
  {{ use = "fresh", name = "echo", {table}, when = {{ path = "/echo" }} }},
]
"""
        + PROJECT,
    )
    status, body = edge.get("/echo", X_Api_Key=key)
    equal("status with the key", status, 200)
    check(key not in body, "the service was shown the key")
    equal("status without one", edge.get("/echo")[0], 401)
    figures = measured(edge, X_Api_Key=key)
    for _ in range(5):
        equal("status with a wrong key", edge.get("/echo", X_Api_Key="guess")[0], 401)
    equal("status after five wrong ones", edge.get("/echo", X_Api_Key=key)[0], 429)
    size = component.stat().st_size / (1 << 20)
    return f"{size:.1f} MiB: {edge.started}, {figures}"


def hostile(world, name, component):
    """What such a filter does wrong costs the one exchange; it sees nothing of this machine."""
    more = 'reuse = 1000000\nlimits = { memory = "64MiB" }'
    edge = Edge(
        world,
        name,
        plugin("bad", component, more) + '[policy.edge]\nfilters = [{ use = "bad", when = { path = "/bad/*" } }]\n' + PROJECT,
    )
    took = {}
    for wrong in ("loop", "memory", "throw"):
        started = time.monotonic()
        equal(f"status of /bad/{wrong}", edge.get(f"/bad/{wrong}")[0], 500)
        took[wrong] = time.monotonic() - started
        # What is broken is not used again, and nothing else is.
        equal(f"count after {wrong}", edge.get("/bad/count"), (200, "1"))
        equal(f"count after {wrong}, again", edge.get("/bad/count"), (200, "2"))
    # Chance is of the moment, not of the build: two instances that begin the same draw differently.
    drawn = [(edge.get("/bad/random"), edge.get("/bad/throw"))[0] for _ in range(2)]
    for which, one, other in zip(("the language's", "the host's"), *(body.split(" ", 1) for _, body in drawn)):
        check(one != other, f"{which} chance repeats itself: {one}")
    equal("log", edge.get("/bad/log"), (200, "logged"))
    edge.told("said by the filter")
    # A stack without end is an error of the language or a trap, and no more than that.
    status, _ = edge.get("/bad/stack")
    check(status in (200, 500), f"status of /bad/stack: {status}")
    loop = f"a loop is stopped after {took['loop'] * 1000:.0f} ms"
    return edge, f"{loop}, of {CROWD} exchanges at a time each takes {crowd(world, edge) / 1024:.1f} MiB"


def resident(daemon, which="VmRSS"):
    """Memory of a process in KiB, now or at its peak (`VmHWM`)."""
    with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
        return int(re.search(rf"^{which}:\s+(\d+) kB$", file.read(), re.M).group(1))


def crowd(world, edge):
    """What each of many exchanges takes in KiB that are with the filter at once."""
    connections = [Connection(edge.tunnel, world.tls("http/1.1")) for _ in range(CROWD)]
    for connection in connections:
        connection.request("GET", "/plain/")
        connection.getresponse().read()
    # The peak is counted from here.
    with open(f"/proc/{edge.engine.process.pid}/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    before = resident(edge.engine)
    for connection in connections:
        connection.request("GET", "/bad/loop")
    for connection in connections:
        equal("status of one in many", connection.getresponse().status, 500)
        connection.close()
    return max(resident(edge.engine, "VmHWM") - before, 0) / CROWD


@case("plugin-hostile-javascript", 600)
def hostile_javascript(world):
    """Loops, memory, errors and a stack without end in JavaScript."""
    component = world.scratch / "hostile-js.wasm"
    command = ["componentize-js", "tests/external/guests/hostile.js", "--wit", "wit", "--world-name", "request-filter"]
    javascript(*command, "--disable", "http", "fetch-event", "--out", component)
    edge, figure = hostile(world, "hostile-js", component)
    equal("what there is", edge.get("/bad/world"), (200, '["undefined","undefined"]'))
    return figure


@case("plugin-hostile-python", 600)
def hostile_python(world):
    """The same in Python."""
    component = world.scratch / "hostile-py.wasm"
    command = ["componentize-py", "-d", "wit", "-w", "adit:filter/request-filter", "componentize", "-p", HOSTILE, "hostile"]
    python(*command, "-o", component)
    edge, figure = hostile(world, "hostile-py", component)
    status, body = edge.get("/bad/world")
    equal("status", status, 200)
    seen = json.loads(body)
    equal("environment", seen.pop("environment"), {})
    for what, answer in seen.items():
        check(isinstance(answer, str) or answer == [], f"{what}: {answer}")
    return figure


def author(world, language):
    """`adit plugin new`, build, check and test in an empty folder, and then live in `adit dev`."""
    where = world.scratch / f"author-{language}"
    where.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ADIT_", "RSTREAM_"))}
    run([ADIT, "plugin", "new", "only-browsers", "--lang", language], cwd=where, env=env)
    project = where / "only-browsers"
    started = time.monotonic()
    run([ADIT, "plugin", "build"], cwd=project, env=env, seconds=400)
    built = time.monotonic() - started
    report = run([ADIT, "plugin", "check", "--json", "only-browsers.wasm"], cwd=project, seconds=200).stdout
    equal("phases", json.loads(report)["phases"], ["request"])
    tried = run([ADIT, "plugin", "test", "only-browsers.wasm"], cwd=project, seconds=200).stdout.decode()
    check(tried.endswith("3 passed\n"), tried)
    daemon = world.start([ADIT, "dev", "--plugin", project / "only-browsers.wasm"], cwd=where, env=env)

    def url(line):
        return re.search(r"https://([a-z0-9.-]+\.localhost):(\d+)", line)

    found = daemon.line("the public URL", url, seconds=COMPILE_SECONDS)
    address = f"https://{found.group(1)}:{found.group(2)}/hello"
    curl = [tool("curl"), "-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", where / ".adit/ca.pem"]
    curl += ["--connect-to", f"::127.0.0.1:{found.group(2)}"]
    for agent, status in (("Mozilla/5.0", "200"), ("MegaCrawler/1.0", "403")):
        equal(f"status for {agent}", run([*curl, "-A", agent, address]).stdout.decode(), status)
    return project, f"tools fetched and built in {built:.0f} s"


@case("plugin-new-javascript", 900)
def author_javascript(world):
    """A filter in JavaScript from nothing, which fits the types of the interface."""
    npm = tool("npm")
    project, figure = author(world, "js")
    run([npm, "run", "check"], cwd=project, seconds=200)
    return figure


@case("plugin-new-python", 900)
def author_python(world):
    """A filter in Python from nothing."""
    _, figure = author(world, "python")
    return figure
