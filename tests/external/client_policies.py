"""The published Python SDK publishes what only some addresses and countries may reach; curl comes from several."""

import asyncio

import netaddr
from mmdb_writer import MMDBWriter
from rstream import Client
from rstream.asgi import serve
from rstream.config import TLSOptions
from rstream.errors import EngineError

from client_python_certificates import names_resolved, visit
from client_python_sdk import application
from support import Failed, case, check, equal

# Addresses of the loopback network, told apart by where the database says they are.
HERE, THERE, NOWHERE = "127.0.0.1", "127.0.1.1", "127.0.2.1"

POLICIES = """
[policy.edge]
filters = [{ use = "trusted-ips", allow = ["127.0.0.0/8"], deny = ["127.0.9.0/24"] }]

[project.default]
policies = ["edge"]
"""


def places(path, rows):
    writer = MMDBWriter(4, "GeoLite2-Country", languages=["en"], description="of these tests")
    for network, country in rows:
        writer.insert_network(netaddr.IPSet([network]), {"country": {"iso_code": country}})
    writer.to_db_file(str(path))


@case("policies-python", 120)
def policies(world):
    """Trusted IPs and GeoIP as the SDK asks for them, each refusal with its allowed twin; creation refused where nobody could come."""
    # edge-behaviour X7, X9, C cases of §14.1
    database = world.scratch / "places.mmdb"
    places(database, [("127.0.0.0/24", "DE"), ("127.0.1.0/24", "FR"), ("127.0.9.0/24", "DE")])
    engine = world.engine_apart("policies", POLICIES, {"ADIT_GEOIP__DATABASE": str(database)})

    async def talk():
        agent = Client(
            engine=engine.address, token=engine.token, tls=TLSOptions(ca_file=str(world.ca)), read_config_file=False
        )
        async with agent, await agent.connect() as control:

            async def answers(what, expected, **options):
                seen = []

                async def counted(scope, receive, send):
                    seen.append(scope["path"])
                    await application(scope, receive, send)

                tunnel = await control.create_tunnel(name=what, **options)
                server = asyncio.create_task(serve(counted, tunnel))
                for version in ("--http1.1", "--http2"):
                    for source, status in expected.items():
                        before = len(seen)
                        url = f"{tunnel.forwarding_address}/{what}"
                        got = await visit(world, url, version, "--interface", source)
                        equal(f"{what}: status of {source} over {version}", got, status)
                        equal(f"{what}: requests of {source} that arrived", len(seen) - before, int(status == "200"))
                server.cancel()
                await asyncio.gather(server, return_exceptions=True)
                return tunnel

            await answers("open", {HERE: "200", THERE: "200", NOWHERE: "200", "127.0.9.1": "403"})
            await answers("trusted", {HERE: "200", THERE: "403", NOWHERE: "403"}, trusted_ips=["127.0.0.0/24"])
            # The project's word stands, whatever the tunnel trusts.
            await answers("wider", {HERE: "200", "127.0.9.1": "403"}, trusted_ips=["0.0.0.0/0"])
            await answers("country", {HERE: "200", THERE: "403", NOWHERE: "403"}, geo_ip=["DE"])
            await answers("countries", {HERE: "200", THERE: "200", NOWHERE: "403"}, geo_ip=["DE", "FR"])
            await answers(
                "both", {HERE: "403", THERE: "200", NOWHERE: "403"}, geo_ip=["FR"], trusted_ips=["127.0.1.0/24"]
            )
            for what, options in {
                "nobody is trusted": {"trusted_ips": ["10.0.0.0/8"]},
                "no network": {"trusted_ips": ["10.0.0.0/33"]},
                "no country": {"geo_ip": ["Germany"]},
            }.items():
                try:
                    await control.create_tunnel(name="refused", **options)
                except EngineError as error:
                    check(error.engine_code is not None, f"{what}: no code in {error}")
                else:
                    raise Failed(f"{what}: a tunnel that nobody could reach was created")
            check(not control.closed, "the control channel ended")

    with names_resolved():
        asyncio.run(talk())
