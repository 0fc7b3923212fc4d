"""The published Python SDK as agent, as dialer and as reader of the inventory."""

import asyncio
import contextlib
import re
import urllib.error
import urllib.request

from rstream import Client, TunnelFilters
from rstream.asgi import serve
from rstream.config import TLSOptions
from rstream.errors import EngineError

from relay import Relay
from support import Failed, case, check, equal, run, tool

DIALERS = 16


def client(world, *, engine=None, **options):
    return Client(
        engine=engine or world.engine().address,
        token=options.pop("token", world.engine().token),
        tls=TLSOptions(ca_file=str(world.ca)),
        read_config_file=False,
        **options,
    )


async def application(scope, receive, send):
    """An ASGI application that tells what it was asked and gives the body back."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} ".encode() + body
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(text))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@contextlib.asynccontextmanager
async def published(world, **options):
    """A control channel with one tunnel that serves the application."""
    async with client(world) as agent:
        async with await agent.connect() as control:
            tunnel = await control.create_tunnel(**options)
            server = asyncio.create_task(serve(application, tunnel))
            try:
                yield agent, control, tunnel
            finally:
                server.cancel()
                await asyncio.gather(server, return_exceptions=True)


async def curl(world, url, *flags):
    host, port = re.fullmatch(r"https://([^:/]+):(\d+)/.*", url).groups()
    argv = [tool("curl"), "--silent", "--show-error", "--cacert", world.ca, "--max-time", "10", *flags]
    done = await asyncio.to_thread(run, [*argv, "--resolve", f"{host}:{port}:127.0.0.1", url])
    return done.stdout


@case("python-sdk-publish", 40)
def publish(world):
    """An ASGI application served through a published tunnel, asked by curl again and again."""

    async def talk():
        async with published(world, name="python-asgi", labels={"team": "external"}) as (_, control, tunnel):
            equal("protocol the engine chose", tunnel.properties.protocol, "http")
            address = tunnel.forwarding_address
            check(re.fullmatch(r"https://[a-z0-9-]+\.t\.localhost:\d+", address), f"forwarding address {address!r}")
            for number in range(5):
                for version in ("--http1.1", "--http2"):
                    body = await curl(world, f"{address}/there?n={number}", version, "--data", f"body {number}")
                    equal("answer", body.decode(), f"POST /there n={number} body {number}")
            check(not control.closed, "the control channel ended")

    asyncio.run(talk())


@case("python-sdk-list", 30)
def inventory(world):
    async def talk():
        async with published(world, name="python-listed", labels={"team": "external"}) as (agent, _, tunnel):
            everything = await agent.list_tunnels()
            check(any(t.properties.id == tunnel.id for t in everything), "the tunnel is not in the list")
            [mine] = await agent.list_tunnels(filters=TunnelFilters(labels={"team": "external"}, publish=True))
            equal("name", mine.properties.name, "python-listed")
            equal("status", mine.status, "online")
            equal("host name", mine.properties.hostname, tunnel.properties.hostname)
            check(mine.properties.creation_date is not None, "no creation date that the SDK understands")
            check(None not in mine.raw.values(), f"null in {mine.raw}")
            equal("limited to one", len(await agent.list_tunnels(limit=1)), 1)
            equal("no such label", await agent.list_tunnels(filters=TunnelFilters(labels={"team": "other"})), [])
            clients = await agent.list_clients()
            [me] = [c for c in clients if c["id"] == mine.client_id]
            equal("agent", me["agent"], "rstream-python-runtime")
            equal("status", me["status"], "online")

    asyncio.run(talk())


async def shout(tunnel):
    """Answers each accepted stream in capitals, for as long as the tunnel lives."""
    async def answer(stream):
        async with stream:
            while chunk := await stream.read(64 * 1024):
                stream.write(chunk.upper())
                await stream.drain()

    async with asyncio.TaskGroup() as group:
        async for stream in tunnel:
            group.create_task(answer(stream))


async def round_trip(dialer, target, text, **options):
    async with await asyncio.wait_for(dialer.dial(target, **options), 10) as stream:
        stream.write(text)
        await stream.drain()
        equal("echo", await asyncio.wait_for(stream.readexactly(len(text)), 10), text.upper())


@contextlib.asynccontextmanager
async def private(world, name, *, agent=None, **options):
    async with agent or client(world) as agent, await agent.connect() as control:
        tunnel = await control.create_tunnel(name=name, publish=False)
        server = asyncio.create_task(shout(tunnel))
        try:
            yield agent, control, tunnel
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)


@case("python-sdk-dial", 40)
def private_dial(world):
    """Private dial by name and by id, with and without zero_rtt, and 16 dialers at once."""

    async def talk():
        # agent-protocol §16 case 27
        async with private(world, "python-private") as (agent, control, tunnel):
            check("(unpublished)" in tunnel.forwarding_address, f"a private tunnel has the address {tunnel.forwarding_address!r}")
            for target in ("python-private", tunnel.id):
                for early in (True, False):
                    await round_trip(agent, target, f"{target} {early}".encode(), zero_rtt=early)
            await asyncio.gather(
                *(round_trip(agent, tunnel.id, b"dialer %02d" % n * 1000, zero_rtt=n % 2 == 0) for n in range(DIALERS))
            )
            check(not control.closed, "the control channel ended")
        async with client(world) as agent:
            try:
                await agent.dial("nobody-here", zero_rtt=False)
            except EngineError as error:
                equal("code of an unknown tunnel", error.engine_code, 3000)
            else:
                raise Failed("a dial to nobody succeeded")

    asyncio.run(talk())


@case("python-sdk-stall", 60)
def stall(world):
    """The network delivers nothing for 4.2 s: a channel with a heartbeat of 1 s survives and opens a tunnel afterwards."""

    async def talk():
        # agent-protocol §16 case 10
        async with Relay(world.engine().port) as relay:
            agent = client(world, engine=f"localhost:{relay.port}", heartbeat_interval=1.0)
            async with private(world, "python-before", agent=agent) as (agent, control, _):
                await round_trip(agent, "python-before", b"before")
                relay.pause()
                await asyncio.sleep(4.2)
                relay.resume()
                await round_trip(agent, "python-before", b"after")
                tunnel = await control.create_tunnel(name="python-after", publish=False)
                server = asyncio.create_task(shout(tunnel))
                await round_trip(agent, "python-after", b"in the new tunnel")
                server.cancel()
                await asyncio.gather(server, return_exceptions=True)
                check(not control.closed, "the control channel ended")

    asyncio.run(talk())


@case("python-sdk-wrong-token", 20)
def wrong_token(world):
    """A token signed with another secret: the SDK shows the engine's words, and the API says 401."""

    async def talk():
        head, payload, _ = world.engine().token.split(".")
        async with client(world, token=f"{head}.{payload}.{'A' * 43}") as agent:
            try:
                await agent.connect()
            except EngineError as error:
                check(str(error), "the refusal has no text")
            else:
                raise Failed("a wrong token was accepted")
        request = urllib.request.Request(f"https://{world.engine().address}/api/tunnels", headers={"Authorization": "Bearer a.b.c"})
        try:
            urllib.request.urlopen(request, timeout=5, context=world.tls())
        except urllib.error.HTTPError as answer:
            equal("status", answer.code, 401)
        else:
            raise Failed("the API took a wrong token")

    asyncio.run(talk())
