"""The published Python SDK known by a client certificate: as agent, at the API by discovery, and to its visitors."""

import asyncio
import contextlib
import socket

from rstream import Client
from rstream.asgi import serve
from rstream.config import TLSOptions
from rstream.errors import EngineError

from client_python_sdk import application, curl
from support import ADIT, Failed, case, check, equal, run

# Where the engine takes certificates for its API: the first label of its name, below this host.
BELOW = "mtls.localhost"


def certificate(world, name):
    """A self-signed client certificate with its key, as `openssl` makes one; what it is called in the credentials file."""
    cert, key = world.scratch / f"{name}.pem", world.scratch / f"{name}.key"
    run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-days", "2"]
        + ["-keyout", key, "-out", cert, "-subj", f"/CN={name}"]
        + ["-addext", "keyUsage=critical,digitalSignature", "-addext", "extendedKeyUsage=clientAuth"]
    )
    return cert, key, run([ADIT, "engine", "credential", cert]).stdout.decode()


@contextlib.contextmanager
def names_resolved():
    """Names below `localhost` lead here, as they do in browsers; the resolver of this system does not know that."""
    resolve = socket.getaddrinfo

    def here(host, *more, **options):
        text = host.decode() if isinstance(host, bytes) else host
        return resolve("127.0.0.1" if text and text.endswith(".localhost") else host, *more, **options)

    socket.getaddrinfo = here
    try:
        yield
    finally:
        socket.getaddrinfo = resolve


def client(world, engine, cert, key):
    tls = TLSOptions(ca_file=str(world.ca), cert_file=str(cert), key_file=str(key))
    return Client(engine=engine.address, tls=tls, read_config_file=False)


async def visit(world, url, *flags):
    """The status a visitor gets, or nothing where hands were not shaken."""
    flags = ["--output", "/dev/null", "--write-out", "%{http_code}", *flags]
    try:
        return (await curl(world, url, *flags)).decode()
    except Failed:
        return ""


@case("python-certificates", 60)
def certificates(world):
    """A certificate makes an agent and, where discovery leads, reads the inventory; visitors of its tunnel need theirs."""
    # agent-protocol §16 case 44, engine-api §4, edge-behaviour M1, M2, M4, M5, Q8
    agent_cert, agent_key, agent_line = certificate(world, "agent")
    visitor_cert, visitor_key, visitor_line = certificate(world, "visitor")
    stranger_cert, stranger_key, _ = certificate(world, "stranger")
    connect = 'permissions = ["tunnels.streams.create-delete"]\n'
    table = f'[[credential]]\nid = "agent"\nuser = "ada"\n{agent_line}\n'
    table += f'[[credential]]\nid = "visitor"\n{connect}{visitor_line}\n'
    file = world.scratch / "certificates.credentials.toml"
    file.write_text(table)
    environment = {"ADIT_AUTH__CREDENTIALS": str(file), "ADIT_AUTH__CERTIFICATE_HOST": BELOW}
    engine = world.engine_apart("certificates", "", environment)

    async def talk():
        async with client(world, engine, agent_cert, agent_key) as agent, await agent.connect() as control:
            tunnel = await control.create_tunnel(name="by-certificate", mtls_auth=True, tls_min_version="tls1.3")
            server = asyncio.create_task(serve(application, tunnel))
            [listed] = await agent.list_tunnels()
            equal("name", listed.properties.name, "by-certificate")
            equal("lowest version", listed.properties.tls_min_version, "tls1.3")
            [me] = await agent.list_clients()
            equal("user", me["user_id"], "ada")
            url = f"{tunnel.forwarding_address}/seen"
            own = ["--cert", visitor_cert, "--key", visitor_key]
            for what, status, flags in [
                ("with its certificate", "200", own),
                ("on HTTP/2", "200", [*own, "--http2"]),
                ("without one", "", []),
                ("with a stranger's", "", ["--cert", stranger_cert, "--key", stranger_key]),
                ("in TLS 1.2", "", [*own, "--tls-max", "1.2"]),
                ("and a token", "400", [*own, "--header", f"Authorization: Bearer {engine.token}"]),
                ("with the agent's", "200", ["--cert", agent_cert, "--key", agent_key]),
            ]:
                equal(f"status of a visitor {what}", await visit(world, url, *flags), status)
            check(not control.closed, "the control channel ended")
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
        async with client(world, engine, stranger_cert, stranger_key) as agent:
            try:
                await agent.connect()
            except EngineError as error:
                equal("code", error.engine_code, 1000)
            else:
                raise Failed("a stranger was let in")
        # The visitor's credential may connect, and nothing else.
        async with client(world, engine, visitor_cert, visitor_key) as reader:
            try:
                await reader.list_tunnels()
            except Exception as error:
                check("403" in str(error), f"the API said {error}")
            else:
                raise Failed("a credential without the permission read the inventory")

    with names_resolved():
        asyncio.run(talk())
