"""Stored credentials: an application's key by `cryptography` and its tokens by PyJWT, in the hands of the Python SDK."""

import asyncio
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from rstream.errors import EngineError, RuntimeError as Refused

from client_python_sdk import application, client, curl
from rstream.asgi import serve
from support import ADIT, Failed, case, check, equal, run


def token(key, client_id, **claims):
    now = int(time.time())
    return jwt.encode({"type": "app", "clientId": client_id, "iat": now, "exp": now + 60, **claims}, key, "ES512")


def line(path):
    """What `adit engine credential` prints of a file."""
    return run([ADIT, "engine", "credential", path]).stdout.decode()


def engine_with(world, name, text):
    file = world.scratch / f"{name}.credentials.toml"
    file.write_text(text)
    return file, world.engine_apart(name, "", {"ADIT_AUTH__CREDENTIALS": str(file)})


@case("python-credentials-application", 40)
def applications(world):
    """An application's ES512 tokens make an agent, list the inventory and visit a tunnel; a stranger's do not."""
    key, stranger = (ec.generate_private_key(ec.SECP521R1()) for _ in range(2))
    secret = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()).hex()
    # engine-api §8.3
    equal("hexadecimal digits of a client secret", len(secret), 482)
    (world.scratch / "app.secret").write_text(secret)
    (world.scratch / "app.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    printed = line(world.scratch / "app.secret")
    equal("line of the public half", line(world.scratch / "app.pem"), printed)
    check(secret[100:160] not in printed, "the secret was printed")
    table = f'[[credential]]\nid = "ci"\nclient-id = "c-1"\nname = "Builder"\n{printed}\n'
    _, engine = engine_with(world, "applications", table)

    async def talk():
        async with client(world, engine=engine.address, token=token(key, "c-1")) as agent:
            async with await agent.connect() as control:
                tunnel = await control.create_tunnel(name="by-application", token_auth=True)
                server = asyncio.create_task(serve(application, tunnel))
                [listed] = await agent.list_tunnels()
                equal("name", listed.properties.name, "by-application")
                [me] = await agent.list_clients()
                equal("user", me["user_id"], "c-1")
                url = f"{tunnel.forwarding_address}/seen"
                path = {"scopes": {"tunnels": {"connect": {"params": {"path": "/seen"}}}}}
                limited = token(key, "c-1", resources={"tunnels": path})
                for what, bearer, target, status in [
                    ("any", token(key, "c-1"), url, b"200"),
                    ("for this path", limited, url, b"200"),
                    ("for another path", limited, url + "/not", b"403"),
                    ("a stranger's", token(stranger, "c-1"), url, b"401"),
                    ("nobody's", token(stranger, "c-2"), url, b"401"),
                    ("over", token(key, "c-1", exp=int(time.time()) - 1), url, b"401"),
                    ("for two hours", token(key, "c-1", exp=int(time.time()) + 7200), url, b"401"),
                ]:
                    flags = ["--output", "/dev/null", "--write-out", "%{http_code}"]
                    got = await curl(world, target, *flags, "--header", f"Authorization: Bearer {bearer}")
                    equal(f"status of a token that is {what}", got, status)
                server.cancel()
                await asyncio.gather(server, return_exceptions=True)
        async with client(world, engine=engine.address, token=token(stranger, "c-1")) as agent:
            try:
                await agent.connect()
            except EngineError as error:
                equal("code", error.engine_code, 1000)
            else:
                raise Failed("a stranger was let in")

    asyncio.run(talk())


@case("python-credentials-revoked", 60)
def revoked(world):
    """A personal token counts while its hash is stored; when it is revoked its agent is disconnected."""
    jwt_secret = (world.scratch / "jwt.secret").read_text()
    pat = jwt.encode({"type": "pat", "iat": int(time.time())}, jwt_secret, "HS256")
    (world.scratch / "pat").write_text(pat)
    table = f'[[credential]]\nid = "ada"\nuser = "u-7"\n{line(world.scratch / "pat")}\n'
    file, engine = engine_with(world, "revoked", table)

    async def talk():
        async with client(world, engine=engine.address, token=pat) as agent:
            async with await agent.connect() as control:
                await control.create_tunnel(name="personal", publish=False)
                [me] = await agent.list_clients()
                equal("user", me["user_id"], "u-7")
                file.write_text(table + "revoked = true\n")
                for _ in range(300):
                    if control.closed:
                        break
                    await asyncio.sleep(0.1)
                else:
                    raise Failed("the agent of a revoked token is still connected after 30 s")
        other = jwt.encode({"type": "pat", "iat": 1}, jwt_secret, "HS256")
        for what, bearer in [("revoked", pat), ("never stored", other)]:
            async with client(world, engine=engine.address, token=bearer) as agent:
                try:
                    await agent.list_tunnels()
                except Refused as error:
                    check("401" in str(error), f"refused with {error}")
                    continue
                raise Failed(f"a personal token that was {what} was accepted")

    asyncio.run(talk())
