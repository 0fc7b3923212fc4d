"""sslyze and testssl.sh against a tunnel of the engine: whatever they find wrong is wrong, but for this run's own CA."""

import json
import subprocess
import sys

from support import Failed, Skip, case, equal, once, run, tool

SSLYZE = "sslyze==6.3.1"

# Findings about the certificate this run makes for itself: it lives for two days, and nobody revokes it or watches over its name.
OF_THE_TEST_CA = {"cert_expirationStatus", "cert_notAfter", "cert_revocation", "DNS_CAArecord"}

# A word about the scanner's own machine, and a check that hangs up before a ticket of TLS 1.3 has come, now and then.
OF_THE_SCANNER = {"engine_problem", "sessionresumption_ticket"}

# What is said of a host that has nothing to hide.
HARMLESS = {"OK", "INFO"}


def sslyze():
    """Its interpreter: it wants another `cryptography` than the other clients, so it has packages of its own."""

    def build(directory):
        run([sys.executable, "-m", "venv", directory], seconds=120)
        pip = [directory / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", SSLYZE]
        if subprocess.run([str(word) for word in pip], capture_output=True, check=False).returncode:
            raise Skip(f"{SSLYZE} could not be installed")

    return once(SSLYZE.replace("==", "-"), build) / "bin" / "python"


def scan(world, host, port, *flags):
    """What sslyze says of a name, as it writes it down."""
    report = world.scratch / "sslyze.json"
    argv = [sslyze(), "-W", "ignore", "-m", "sslyze", "--quiet", "--sni", host, "--certinfo_ca_file", world.ca]
    done = run([*argv, "--json_out", report, *flags, f"127.0.0.1:{port}"], seconds=120, ok=None)
    if not report.exists():
        raise Failed(f"sslyze wrote no report: {done.stdout.decode()[-300:]} {done.stderr.decode()[-300:]}")
    [server] = json.loads(report.read_text())["server_scan_results"]
    equal("connectivity", server["connectivity_status"], "COMPLETED")
    return done, {name: part["result"] for name, part in server["scan_result"].items() if part and part.get("result")}


def accepted(found, version):
    return sorted(one["cipher_suite"]["name"] for one in found[version]["accepted_cipher_suites"])


@case("tls-sslyze", 240)
def by_sslyze(world):
    """A tunnel complies with Mozilla's intermediate configuration, one that asks for TLS 1.3 with its modern one."""
    tunnel = world.tunnel()
    strict = world.forward(world.origin().port, "--name", "strict", "--tls-min-version", "tls1.3")
    for host, level, old in [(tunnel.host, "intermediate", 3), (strict.host, "modern", 0)]:
        done, found = scan(world, host, tunnel.port, "--mozilla_config", level)
        # sslyze exits with 1 where the configuration is not complied with.
        verdict = done.stdout.decode().strip().rsplit("\n", 1)[-1].strip()
        equal(f"compliance of {host}", (done.returncode, verdict), (0, f"127.0.0.1:{tunnel.port}: OK - Compliant."))
        for version in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
            equal(version, accepted(found, f"{version}_cipher_suites"), [])
        equal("suites of TLS 1.2", len(accepted(found, "tls_1_2_cipher_suites")), old)
        equal("suites of TLS 1.3", len(accepted(found, "tls_1_3_cipher_suites")), 3)
        equal("compression", found["tls_compression"]["supports_compression"], False)
        equal("renegotiation", found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"], False)
        equal("heartbleed", found["heartbleed"]["is_vulnerable_to_heartbleed"], False)
        equal("CCS injection", found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"], False)
        [deployment, *_] = found["certificate_info"]["certificate_deployments"]
        trusting = [
            path["trust_store"]["name"]
            for path in deployment["path_validation_results"]
            if path["was_validation_successful"]
        ]
        # The test CA is believed where it was given, and nowhere else.
        equal("who trusts the certificate", trusting, ["Supplied CA file"])
        equal("order of the chain", deployment["received_chain_has_valid_order"], True)
    return "intermediate and modern"


@case("tls-testssl", 300)
def by_testssl(world):
    """Protocols, suites, forward secrecy, preferences and vulnerabilities of the engine's host and of a tunnel."""
    scanner, findings = tool("testssl", package="testssl.sh"), 0
    tunnel = world.tunnel()
    for host in (tunnel.host, "localhost"):
        report = world.scratch / f"{host}.testssl.json"
        what = ["-p", "-s", "-f", "-P", "-S", "-U", "--add-ca", world.ca, "--jsonfile", report]
        how = ["--quiet", "--color", "0", "--warnings", "batch", "--ip", "127.0.0.1"]
        run([scanner, *how, *what, f"https://{host}:{tunnel.port}/"], seconds=140, ok=None)
        found = json.loads(report.read_text())
        findings += len(found)
        excused = OF_THE_TEST_CA | OF_THE_SCANNER
        bad = [f"{one['id']} ({one['severity']}): {one['finding']}" for one in found
               if one["severity"] not in HARMLESS and one["id"] not in excused]
        equal(f"findings about {host}", bad, [])
        # A scan that broke off has nothing to say of the last part.
        if not any(one["id"] == "RC4" for one in found):
            raise Failed(f"the scan of {host} did not come to its end: {found[-3:]}")
    return f"{findings} findings, none against"
