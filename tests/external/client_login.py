"""Chromium signs in to tunnels that the published Python SDK publishes: by a local account, and at a certified OpenID provider."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import time

from client_chromium import key_hash, playwright
from client_python_sdk import application, client
from rstream.asgi import serve
from support import ADIT, HERE, Failed, Skip, case, check, equal, free_port, once, run, tool

OIDC_PROVIDER = "8.8.1"
PASSWORD = "correct horse battery"
# The engine looks at its accounts every two seconds and waits until they have settled.
READ_AGAIN_SECONDS = 15
# A provider that failed is left alone for two seconds.
AWAY_SECONDS = 20


def oidc_provider():
    npm = tool("npm")
    tool("node", package="nodejs")

    def build(directory):
        run([npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", directory, f"oidc-provider@{OIDC_PROVIDER}"], seconds=240)

    try:
        return once("oidc-provider", build)
    except Failed as error:
        raise Skip(f"oidc-provider {OIDC_PROVIDER} could not be installed: {error}") from error


def account(world, *argv, config=None, password=PASSWORD):
    """What `adit engine account` prints; the password comes on standard input."""
    config = config or world.engine().config
    return run([ADIT, "engine", "account", *argv, "--config", config], stdin=f"{password}\n".encode(), cwd=world.scratch).stdout.decode()


@contextlib.asynccontextmanager
async def published(world, engine, **options):
    """A tunnel of the published SDK that asks users to sign in; gives its address."""
    async with client(world, engine=engine.address, token=engine.token) as agent, await agent.connect() as control:
        tunnel = await control.create_tunnel(rstream_auth=True, **options)
        server = asyncio.create_task(serve(application, tunnel))
        try:
            yield tunnel.forwarding_address
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)


async def browse(world, address, *steps, **wish):
    """Goes through these steps in a fresh browser; gives what it saw, and fails on errors in its console."""
    host, port = re.fullmatch(r"https://([^:/]+):(\d+)", address).groups()
    asked = {
        "chromium": tool("chromium"),
        "key": await asyncio.to_thread(key_hash, host, port),
        "root": os.geteuid() == 0,
        "steps": steps,
        **wish,
    }
    env = dict(os.environ, NODE_PATH=str(playwright() / "node_modules"), HOME=str(world.scratch))
    done = await asyncio.to_thread(run, [tool("node"), HERE / "login.cjs", json.dumps(asked)], env=env, seconds=90)
    told = json.loads(done.stdout)
    equal("errors in the console", told["errors"], [])
    return told["seen"]


def by_keyboard(address, name, password=PASSWORD):
    """Signs in with the keyboard alone: the first field has the focus."""
    return [
        ["open", f"{address}/page?x=1"],
        ["at", "/rstream/auth"],
        ["look"],
        ["type", name],
        ["press", "Tab"],
        ["type", password],
        ["press", "Enter"],
    ]


def inside(address):
    return ["at", f"^{re.escape(address)}/page"]


@case("login-account", 240)
def local_account(world):
    """A local account made by the command line, entered with the keyboard alone and with scripts off."""
    playwright()
    accounts = world.scratch / "login-accounts.toml"
    accounts.write_text("".join(account(world, "add", name, "--email", f"{name}@example.com") for name in ("ada", "bob")))
    rule = "[project.default]\nusers = { emails = ['ada@example.com'] }\n"
    engine = world.engine_apart("login-account", f"[login]\naccounts = '{accounts}'\n{rule}", {})

    async def talk():
        async with published(world, engine) as one, published(world, engine) as other:
            # edge-behaviour §14.4 H8 to H12, as a page of the service asks.
            steps = [
                *by_keyboard(one, "ada"),
                inside(one),
                ["look"],
                ["fetch", "/.well-known/rstream/session", "GET"],
                ["open", f"{other}/page"],
                ["look"],
                ["open", f"{one}/page"],
                ["fetch", "/.well-known/rstream/logout", "POST"],
                ["fetch", "/.well-known/rstream/session", "GET"],
                ["open", f"{one}/page"],
                ["look"],
                ["press", "Enter"],
                inside(one),
                ["look"],
                ["open", f"https://{engine.address}/rstream/logout"],
                ["press", "Enter"],
                ["sees", "You are signed out"],
                ["look"],
                ["open", f"{other}/page"],
                ["look"],
            ]
            form, page, session, second, out, nobody, asked, back, signed_out, again = await browse(world, one, *steps)
            for role in ('heading "Sign in"', 'textbox "Name"', 'textbox "Password"', 'button "Sign in"'):
                check(role in form["roles"], f"no {role} in {form['roles']}")
            equal("text", page["text"].strip(), "GET /page x=1")
            equal("address", page["url"], f"{one}/page?x=1")
            [cookie] = [c for c in page["cookies"] if c["name"] == "rstream_auth"]
            host = re.match(r"https://([^:]+)", one).group(1)
            want = {"name": "rstream_auth", "domain": host, "path": "/", "secure": True, "httpOnly": True, "sameSite": "Lax"}
            equal("cookie", cookie, want)
            told = json.loads(session["text"])
            equal("session", (told["auth"], told["user"]["email"]), ({"authenticated": True, "method": "rstream-auth"}, "ada@example.com"))
            equal("policies", told["policies"], ["rstream-auth"])
            equal("second tunnel", second["text"].strip(), "GET /page")
            equal("status of signing out", out["status"], 204)
            equal("session afterwards", json.loads(nobody["text"]), {"auth": {"authenticated": False}})
            check("Continue as ada@example.com?" in asked["text"], asked["text"])
            equal("back in", back["text"].strip(), "GET /page")
            check("You are signed out" in signed_out["text"], signed_out["text"])
            check("Password" in again["text"], f"still signed in: {again['text']}")

            # The wrong password, then a user who may not enter; all of it without scripts, on a phone.
            steps = [
                *by_keyboard(one, "ada", "not that one"),
                ["at", "/rstream/auth/password"],
                ["look"],
                ["fill", "#name", "bob"],
                ["fill", "#password", PASSWORD],
                ["click", "button"],
                ["sees", "You may not enter"],
                ["look"],
                ["click", "a.button"],
                ["fill", "#name", "ada"],
                ["fill", "#password", PASSWORD],
                ["click", "button"],
                inside(one),
                ["look"],
            ]
            phone = {"width": 360, "height": 740}
            _, wrong, refused, page = await browse(world, one, *steps, scripts=False, viewport=phone)
            equal("status of a wrong password", wrong["status"], 401)
            check("Name or password is wrong" in wrong["text"] and "alert" in wrong["roles"], wrong["roles"])
            equal("status of a user who may not enter", refused["status"], 403)
            check("bob@example.com" in refused["text"], refused["text"])
            check(wrong["width"] <= 0 and refused["width"] <= 0, "the page is wider than a phone")
            equal("text", page["text"].strip(), "GET /page x=1")

            # Another password signs its user out, by itself.
            told = await asyncio.to_thread(account, world, "password", "ada", config=engine.config, password="another horse")
            check("another password" in told, told)
            end = time.monotonic() + READ_AGAIN_SECONDS
            steps = [*by_keyboard(one, "ada", "another horse"), ["look"]]
            while "GET" not in (await browse(world, one, *steps))[-1]["text"]:
                check(time.monotonic() < end, "the new password does not count")
                await asyncio.sleep(1)

    asyncio.run(talk())


@case("login-provider", 300)
def certified_provider(world):
    """Signing in at oidc-provider, which changes its keys meanwhile, goes away and comes back."""
    where, port = oidc_provider(), free_port()
    playwright()
    secret = world.scratch / "oidc.secret"
    secret.touch(0o600)
    secret.write_text("a secret of client and provider")
    more = (
        f"[login.oidc]\nissuer = 'http://localhost:{port}'\nname = 'Certified'\nclient-id = 'adit'\n"
        f"client-secret = {{ file = '{secret}' }}\n[project.default]\nusers = {{ domains = ['example.com'], groups = ['nobody'] }}\n"
    )
    engine = world.engine_apart("login-provider", more, {})
    wish = {
        "module": str(where / "node_modules/oidc-provider/lib/index.js"),
        "port": port,
        "secret": secret.read_text(),
        "redirect": f"https://{engine.address}/rstream/auth/callback",
    }

    provider = world.start([tool("node"), HERE / "provider.mjs", json.dumps(wish)], stdin=subprocess.PIPE, cwd=world.scratch)
    provider.line("that it listens", lambda line: line == "listening")

    def tell(word):
        provider.process.stdin.write(f"{word}\n".encode())
        provider.process.stdin.flush()
        provider.line(f"that it is told to go {word}", lambda line: line == word)

    def at_provider(address, name):
        return [
            ["open", f"{address}/page?x=1"],
            ["at", f"localhost:{port}/interaction"],
            ["fill", "[name=login]", name],
            ["fill", "[name=password]", "any"],
            ["click", "button[type=submit]"],
            # It asks whether this engine may know.
            ["click", "button[type=submit]"],
        ]

    async def talk():
        async with published(world, engine) as one, published(world, engine) as other:
            steps = [*at_provider(one, "ada"), inside(one), ["look"], ["fetch", "/.well-known/rstream/session", "GET"]]
            page, session, second = await browse(world, one, *steps, ["open", f"{other}/page"], ["look"])
            equal("text", page["text"].strip(), "GET /page x=1")
            user = json.loads(session["text"])["user"]
            equal("user", user, {"userId": "oidc:ada", "name": "Dr ada", "email": "ada@example.com", "image": None})
            equal("second tunnel", second["text"].strip(), "GET /page")

            # Nobody has verified that address, so the rule does not name it.
            [refused] = await browse(world, one, *at_provider(one, "mallory"), ["at", "/rstream/auth/callback"], ["look"])
            equal("status of a user who may not enter", refused["status"], 403)

            # From an elliptic curve to RSA, while the engine runs.
            await asyncio.to_thread(tell, "rotate")
            [page] = await browse(world, one, *at_provider(one, "ada"), inside(one), ["look"])
            equal("text after the keys changed", page["text"].strip(), "GET /page x=1")

            # Away: nobody gets in, and everybody is told what to do. And back, by itself.
            await asyncio.to_thread(tell, "down")
            [away] = await browse(world, one, *at_provider(one, "ada"), ["at", "/rstream/auth/callback"], ["look"])
            equal("status without the provider", away["status"], 503)
            check("Certified does not answer" in away["text"] and "Try again" in away["text"], away["text"])
            check(all(c["name"] != "__Host-rstream_login" for c in away["cookies"]), f"signed in: {away['cookies']}")
            await asyncio.to_thread(tell, "up")
            end = time.monotonic() + AWAY_SECONDS
            steps = [*at_provider(one, "ada"), ["at", "/rstream/auth/callback|/page"], ["look"]]
            while "GET" not in (page := (await browse(world, one, *steps))[0])["text"]:
                check(time.monotonic() < end, f"the provider is back, and still: {page['text']}")

    asyncio.run(talk())
