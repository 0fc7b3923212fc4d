"""A Go program on the published Go SDK: it publishes, dials, and outlives a stall of the network."""

import asyncio
import json
import shutil
import threading

from client_curl import curl
from client_go_cli import go_install
from relay import Relay
from support import HERE, Failed, case, check, equal, run
from world import Tunnel

MODULE = "github.com/rstreamlabs/rstream-go@latest"


def program():
    def build(go, directory, env):
        shutil.copy(HERE / "gosdk" / "main.go", directory / "main.go")
        run([go, "mod", "init", "adit.test/gosdk"], cwd=directory, env=env)
        run([go, "get", MODULE], cwd=directory, env=env, seconds=200)
        run([go, "build", "-o", "gosdk", "."], cwd=directory, env=env, seconds=300)

    return go_install("go-sdk", build) / "gosdk"


def environment(world, engine=None):
    return world.agent_environment(
        GOSDK_ENGINE=engine or world.engine().address, GOSDK_TOKEN=world.engine().token, GOSDK_CA=str(world.ca)
    )


@case("go-sdk-publish", 480)
def publish(world):
    agent = world.start([program(), "publish"], env=environment(world))
    tunnel = Tunnel(agent.line("its address", lambda line: json.loads(line)))
    body, facts = curl(world, tunnel, "/from-go")
    equal("status", facts["response_code"], 200)
    equal("body", body, b"go saw /from-go")


@case("go-sdk-dial", 90)
def dial(world):
    """By name and id, with and without zero_rtt, and 16 dialers at once."""
    # agent-protocol §16 case 27
    run([program(), "dial"], env=environment(world), seconds=60)


@case("go-sdk-stall", 90)
def stall(world):
    """4.2 s without a byte either way at a heartbeat of 1 s; afterwards the same channel opens a tunnel."""
    # agent-protocol §16 case 10
    path, loop, ready = program(), asyncio.new_event_loop(), threading.Event()
    relay = Relay(world.engine().port)

    def serve():
        loop.run_until_complete(relay.__aenter__())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(relay.__aexit__(None, None, None))
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    check(ready.wait(10), "the relay did not come up")
    try:
        agent = world.start([path, "stall"], env=environment(world, f"localhost:{relay.port}"))
        agent.line("that it is connected", lambda line: line == "connected")
        loop.call_soon_threadsafe(relay.pause)
        threading.Event().wait(4.2)
        loop.call_soon_threadsafe(relay.resume)
        agent.line("that the tunnel works", lambda line: line == "echoed")
    except Failed as error:
        raise Failed(f"{error}") from error
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(15)
