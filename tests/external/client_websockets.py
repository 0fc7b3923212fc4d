"""The Python `websockets` client over HTTP/1.1 against an aiohttp server behind the tunnel."""

import asyncio

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support import Failed, case, check, equal

MESSAGE_BYTES = 1 << 20


def dial(world, tunnel, path="/ws", **options):
    return connect(
        f"wss://{tunnel.host}:{tunnel.port}{path}",
        ssl=world.tls("http/1.1"),
        server_hostname=tunnel.host,
        host="127.0.0.1",
        port=tunnel.port,
        max_size=4 * MESSAGE_BYTES,
        proxy=None,
        **options,
    )


@case("websockets-echo", 30)
def echo(world):
    tunnel = world.tunnel()

    async def talk():
        async with dial(world, tunnel, subprotocols=["other", "echo.v1"]) as socket:
            equal("subprotocol", socket.subprotocol, "echo.v1")
            for message in ("text", "", b"\x00\xff", b"x" * MESSAGE_BYTES, "ü" * 1000):
                await socket.send(message)
                equal("echo", await asyncio.wait_for(socket.recv(), 5), message)
            await asyncio.wait_for(await socket.ping(), 5)
            await socket.close(4000, "bye")
            # aiohttp answers every close with 1000; a torn connection would show as 1006.
            equal("close code of the answer", socket.close_code, 1000)

    asyncio.run(talk())
    equal("close code at the origin", world.origin().gone.get(timeout=5), ("ws", 4000))


@case("websockets-closed-by-origin", 30)
def closed_by_origin(world):
    tunnel = world.tunnel()

    async def talk():
        async with dial(world, tunnel) as socket:
            equal("subprotocol", socket.subprotocol, None)
            await socket.send("close please")
            try:
                await asyncio.wait_for(socket.recv(), 5)
            except ConnectionClosed as closed:
                equal("close code", closed.rcvd.code, 4001)
                equal("reason", closed.rcvd.reason, "as you wish")
            else:
                raise Failed("the socket stayed open")

    asyncio.run(talk())


@case("websockets-refused", 30)
def refused(world):
    """What the origin says instead of an upgrade reaches the visitor as it is."""
    tunnel = world.tunnel()

    async def talk():
        try:
            async with dial(world, tunnel, path="/no-such-socket"):
                raise Failed("an upgrade that the origin refused was granted")
        except InvalidStatus as answer:
            equal("status", answer.response.status_code, 404)

    asyncio.run(talk())


@case("websockets-many", 40)
def many(world):
    """32 sockets at once, each with its own conversation, while plain requests go on."""
    tunnel = world.tunnel()

    async def one(number):
        async with dial(world, tunnel) as socket:
            for turn in range(20):
                await socket.send(f"{number}:{turn}")
                equal("echo", await asyncio.wait_for(socket.recv(), 10), f"{number}:{turn}")

    async def all_of_them():
        await asyncio.gather(*(one(number) for number in range(32)))

    asyncio.run(all_of_them())
    check(len(world.origin().requests) >= 32, "the origin did not see all of them")
