"""Traces and logs as OpenTelemetry's own Python package reads them."""

import gzip
import http.server
import threading
import zlib

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from support import ADIT, case, check, equal, run, tool, wait_for
from world import Tunnel, online

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

POLICIES = """
[policy.edge]
filters = [
  {{ use = "token", when = {{ path = "/private/*" }} }},
  {{ use = "otlp", endpoint = "http://127.0.0.1:{port}", service-name = "edge", trust-incoming = true,
    headers = {{ x-key = {{ file = "{key}" }} }}, resource = {{ "deployment.environment" = "tests" }} }},
]

[project.default]
policies = ["edge"]
"""


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what it is sent, decoded."""

    def __init__(self):
        self.spans, self.records, self.raw, self.keys = [], [], b"", set()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        match self.headers.get("content-encoding"):
            case "gzip":
                body = gzip.decompress(body)
            case "deflate":
                body = zlib.decompress(body)
        seen = self.server
        seen.raw += body
        seen.keys.add(self.headers.get("x-key"))
        check(self.headers["content-type"] == "application/x-protobuf", "another content type")
        if self.path == "/v1/traces":
            message = ExportTraceServiceRequest.FromString(body)
            for part in message.resource_spans:
                seen.spans += [(part.resource, span) for scope in part.scope_spans for span in scope.spans]
        elif self.path == "/v1/logs":
            message = ExportLogsServiceRequest.FromString(body)
            for part in message.resource_logs:
                seen.records += [(part.resource, one) for scope in part.scope_logs for one in scope.log_records]
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def plain(attributes):
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@case("otlp-python", 60)
def signals(world):
    """Spans and log records of allowed and refused requests: names, ids, status, attributes, and no secret anywhere."""
    collector = Collector()
    key = "a key that only the collector may see"
    file = world.scratch / "collector.key"
    file.touch(0o600)
    file.write_text(key)
    engine = world.engine_apart("otlp", POLICIES.format(port=collector.server_port, key=file), {})
    environment = world.agent_environment(ADIT_ENGINE=engine.address, ADIT_TOKEN=engine.token)
    agent = world.start(
        [ADIT, "forward", f"127.0.0.1:{world.origin().port}", "-o", "json", "--name", "traced"], env=environment
    )
    tunnel = Tunnel(agent.line("an online tunnel", online))
    url = f"https://{tunnel.host}:{engine.port}"
    curl = [tool("curl"), "--silent", "--cacert", world.ca, "--resolve", f"{tunnel.host}:{engine.port}:127.0.0.1"]
    curl += ["--output", "/dev/null", "--write-out", "%{http_code}"]
    cookie = "session=of-the-visitor"
    traced = ["--header", f"traceparent: 00-{TRACE}-{PARENT}-01", "--cookie", cookie]
    asked = {
        "allowed": [*traced, f"{url}/open?a=1"],
        "with a token": ["--header", f"Authorization: Bearer {engine.token}", f"{url}/private/a"],
        "with a token in the query": [f"{url}/private/b?rstream.token={engine.token}"],
        "without one": [f"{url}/private/c"],
    }
    statuses = {what: run([*curl, *flags]).stdout.decode() for what, flags in asked.items()}
    equal("status without a token", statuses["without one"], "401")
    for what in ("with a token", "with a token in the query"):
        check(statuses[what] != "401", f"{what}: refused")

    wait_for("four spans and four records", lambda: len(collector.spans) >= 4 and len(collector.records) >= 4)
    equal("spans", len(collector.spans), 4)
    equal("log records", len(collector.records), 4)
    equal("keys shown", collector.keys, {key})
    for secret in (engine.token, cookie, "of-the-visitor", key):
        check(secret.encode() not in collector.raw, f"a secret was sent: {secret[:16]}…")

    for resource, _ in collector.spans + collector.records:
        about = plain(resource.attributes)
        equal("service", about["service.name"], "edge")
        equal("environment", about["deployment.environment"], "tests")
    spans = {plain(span.attributes)["url.path"]: span for _, span in collector.spans}
    equal("paths", set(spans), {"/open", "/private/a", "/private/b", "/private/c"})
    continued = spans["/open"]
    equal("trace", continued.trace_id.hex(), TRACE)
    equal("parent", continued.parent_span_id.hex(), PARENT)
    for path, span in spans.items():
        about = plain(span.attributes)
        equal(f"{path}: kind", span.kind, Span.SpanKind.SPAN_KIND_SERVER)
        equal(f"{path}: method", about["http.request.method"], "GET")
        equal(f"{path}: scheme", about["url.scheme"], "https")
        equal(f"{path}: host", about["server.address"], tunnel.host)
        equal(f"{path}: visitor", about["client.address"], "127.0.0.1")
        check(len(span.trace_id) == 16 and any(span.trace_id), f"{path}: no trace id")
        check(len(span.span_id) == 8 and any(span.span_id), f"{path}: no span id")
        check(0 < span.start_time_unix_nano <= span.end_time_unix_nano, f"{path}: its time runs backwards")
        # A server's span is in error for 5xx alone.
        expected = Status.STATUS_CODE_ERROR if about["http.response.status_code"] >= 500 else Status.STATUS_CODE_UNSET
        equal(f"{path}: status", span.status.code, expected)
    equal("status of the refused", plain(spans["/private/c"].attributes)["http.response.status_code"], 401)
    records = {plain(record.attributes)["url.path"]: record for _, record in collector.records}
    for path, span in spans.items():
        equal(f"{path}: trace of its record", records[path].trace_id, span.trace_id)
        equal(f"{path}: span of its record", records[path].span_id, span.span_id)
    collector.shutdown()
