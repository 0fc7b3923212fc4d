"""The corpus of http_desync_guardian: requests made to be read differently by two servers in a row."""

import collections
import json
import re
import shutil
import socket
import ssl
import unicodedata

import yaml

from strict import MARK, StrictOrigin
from support import Failed, Skip, case, check, once, run, shorten, wait_for

CRATE = "http_desync_guardian"
VERSION = "0.1.3"
CASES_IN_CORPUS = 159
# Longest wait for the engine's next byte, in seconds.
ANSWER_SECONDS = 5.0
# Longest body written to make up a length that a case announces, in bytes.
BODY_BYTES = 8 << 20
# What becomes of a case, from the least to the most.
FATES = ("closed", "refused", "forwarded")
FRAMING = {"contentlength": b"content-length", "transferencoding": b"transfer-encoding"}


def corpus():
    """The crate's test cases as cargo's registry holds them; nothing of it is copied."""
    cargo = shutil.which("cargo")
    if not cargo:
        raise Skip(f"cargo is missing, which fetches {CRATE}")

    def build(directory):
        (directory / "src").mkdir()
        (directory / "src" / "lib.rs").touch()
        # A workspace of its own: the folder lies inside another one.
        text = f'[workspace]\n[package]\nname = "corpus"\nversion = "0.0.0"\n[dependencies]\n{CRATE} = "={VERSION}"\n'
        (directory / "Cargo.toml").write_text(text)
        run([cargo, "fetch", "--quiet"], cwd=directory, seconds=120)

    try:
        project = once("desync-corpus", build)
        # Fetches again where the registry folder was emptied since.
        shown = run([cargo, "metadata", "--format-version", "1", "--locked"], cwd=project, seconds=120).stdout
    except Failed as error:
        raise Skip(f"{CRATE} {VERSION} could not be fetched: {error}") from error
    package = next(p for p in json.loads(shown)["packages"] if p["name"] == CRATE)
    folder = package["manifest_path"].rsplit("/", 1)[0] + "/tests"
    cases = []
    for name in sorted(run(["ls", folder]).stdout.decode().split()):
        if name.endswith(".yaml"):
            with open(f"{folder}/{name}", encoding="utf-8") as file:
                # The base loader leaves `1000` and `0x10` the strings they are.
                cases += [(name, entry) for entry in yaml.load(file, Loader=yaml.BaseLoader)]
    check(len(cases) == CASES_IN_CORPUS, f"the corpus has {len(cases)} cases, not {CASES_IN_CORPUS}")
    return cases


def octets(text):
    """An escape such as `\\x85` means that octet; what is written out in other scripts is UTF-8."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def looks_like(name):
    """A field name without what hides it: case, spaces, controls, punctuation and look-alike letters."""
    plain = unicodedata.normalize("NFKC", name).casefold().replace("ı", "i")
    return re.sub(r"[^a-z]", "", plain)


class Probe:
    """One case with one body, as bytes."""

    def __init__(self, number, case_number, label, entry, encode, body, host):
        self.number = number
        self.case_number = case_number
        self.label = label
        self.method = entry["method"]
        line = f"{entry['method']} {entry['uri']}" + (f" {entry['version']}" if entry["version"] else "")
        fields = [(field["name"], field["value"]) for field in entry["headers"] or []]
        named = any(name.strip().lower() == "host" for name, _ in fields)
        head = [encode(line)]
        # Without the tunnel's name every case would end as "no host"; one that brings a host is to find the tunnel too.
        if not named:
            head.append(b"Host: " + host)
        for name, value in fields:
            head.append(encode(name) + b": " + (host if name.strip().lower() == "host" else encode(value)))
        self.bytes = b"\r\n".join(head) + b"\r\n\r\n" + body


def hidden(number, host):
    return b"GET /smuggled-%d HTTP/1.1\r\nHost: %s\r\nX-Hidden: yes\r\n\r\n" % (number, host)


def chunk(data, digits=1):
    return b"%0*x\r\n%s\r\n" % (digits, len(data), data)


def filler(length=0):
    """Stands before what is hidden: whoever takes it, cut off anywhere up to `length`, for the next request finds none."""
    return b"\r\n" + b":" * (length + 16) + b"\r\n\r\n"


def bodies(entry, secret):
    """Bodies for a case, by what they try. Read as RFC 9112 demands, none of them is followed by a second request."""
    fields = [(field["name"], field["value"]) for field in entry["headers"] or []]
    exact = {name.strip().lower() for name, _ in fields}
    coded = any(looks_like(name) == "transferencoding" for name, _ in fields)
    values = [value for name, value in fields if looks_like(name) == "contentlength"]
    digits = next((found.group(0) for value in values if (found := re.search(r"\d+", value))), None)
    length = int(digits) if digits and int(digits) <= BODY_BYTES else None
    if "content-length" not in exact:
        yield "unframed", filler(length or 0) + secret
    if coded or length is None:
        yield "chunked", chunk(filler(length or 0) + secret) + b"0\r\n\r\n"
    if length is not None:
        yield "length", (filler() + secret).ljust(length, b":") if length >= len(filler() + secret) else b":" * length
    if length is not None and not coded and "content-length" in exact and length >= len(secret):
        # Nothing but the length keeps this from being the next request.
        yield "length, bare", secret.ljust(length, b":")
    if length is not None and "transfer-encoding" in exact:
        # The coding ends the body at once, the length covers what follows.
        yield "coding ends first", (b"0\r\n\r\n" + secret).ljust(length, b":")
        # The length ends the body just before what is hidden, the coding covers it.
        if 4 <= length <= 10:
            yield "length ends first", chunk(secret, length - 2) + b"0\r\n\r\n"
        elif length > 10:
            inner = length - len(b"%x\r\n" % (length + len(secret)))
            yield "length ends first", chunk(b":" * inner + secret) + b"0\r\n\r\n"


def probes(cases, host):
    """Every case with every body, and once more where the octets meant by its escapes are in doubt."""
    number = 0
    for case_number, (file, entry) in enumerate(cases):
        text = json.dumps(entry, ensure_ascii=False)
        doubtful = any("\x80" <= char <= "\xff" for char in text)
        for encode in (octets, str.encode) if doubtful else (octets,):
            for kind, body in bodies(entry, hidden(case_number, host)):
                yield Probe(number, case_number, f"{file}: {entry['name']} [{kind}]", entry, encode, body, host)
                number += 1


class Visitor:
    """A connection whose answers are read one after another."""

    def __init__(self, world, tunnel):
        raw = socket.create_connection(("127.0.0.1", tunnel.port), timeout=ANSWER_SECONDS)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._tls = world.tls("http/1.1").wrap_socket(raw, server_hostname=tunnel.host)
        self._rest = b""
        self.ended = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._tls.close()

    def send(self, data):
        try:
            self._tls.sendall(data)
        except (ConnectionError, ssl.SSLError):
            pass  # The engine has closed; its answer, if it gave one, is still to be read.

    def _more(self):
        if self.ended:
            return False
        try:
            piece = self._tls.recv(64 * 1024)
        except TimeoutError:
            raise Failed(f"neither an answer nor an end within {ANSWER_SECONDS:.0f} s") from None
        except (ConnectionError, ssl.SSLError):
            piece = b""
        self._rest += piece
        self.ended = not piece
        return bool(piece)

    def _line(self):
        while b"\r\n" not in self._rest:
            if not self._more():
                return None
        line, self._rest = self._rest.split(b"\r\n", 1)
        return line

    def _exactly(self, count):
        while len(self._rest) < count:
            check(self._more(), "an answer was cut off")
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken

    def answer(self, head_only=False):
        """The next final answer as status, fields and body; `None` where the connection ends without one."""
        while True:
            line = self._line()
            if line is None:
                check(not self._rest, f"the engine sent {self._rest[:80]!r} and closed")
                return None
            found = re.fullmatch(rb"HTTP/1\.[01] (\d{3}) ?.*", line)
            check(found, f"{line!r} begins no answer")
            status, fields = int(found.group(1)), {}
            while line := self._line():
                name, _, value = line.partition(b":")
                fields[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
            if status < 200:
                continue
            return status, fields, b"" if head_only or status in (204, 304) else self._body(fields)

    def _body(self, fields):
        if fields.get("transfer-encoding") == "chunked":
            whole = b""
            while size := int(self._line(), 16):
                whole += self._exactly(size)
                self._exactly(2)
            self._line()
            return whole
        if "content-length" in fields:
            return self._exactly(int(fields["content-length"]))
        while self._more():
            pass
        whole, self._rest = self._rest, b""
        return whole


def request(target, host):
    return b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (target, host)


def converse(world, tunnel, probe, host):
    """Sends a probe and, where the engine would go on, one more request; returns every answer of the connection."""
    answers = []
    with Visitor(world, tunnel) as visitor:
        visitor.send(probe.bytes)
        first = visitor.answer(head_only=probe.method == "HEAD")
        if first is None:
            return answers
        answers.append(first)
        if first[1].get("connection", "").lower() != "close":
            visitor.send(request(b"/sentinel-%d" % probe.number, host))
        while (more := visitor.answer()) is not None:
            answers.append(more)
    return answers


def counted(engine):
    """`adit_edge_requests_total`, by class of status."""
    lines = re.findall(r'^adit_edge_requests_total\{protocol="[^"]+",status="(\w+)"\} (\d+)$', engine.metrics(), re.M)
    total = collections.Counter()
    for label, value in lines:
        total[label] += int(value)
    return total


def judge(probe, before, engine, origin, mark, answers):
    """Raises unless the origin saw exactly the requests that the edge answered from it, and nothing that was hidden."""
    seen, malformed = origin.since(mark)
    check(not malformed, f"the origin got bytes that are no request: {malformed}")
    check(not any(b"smuggled" in each.target for each in seen), f"the hidden request reached the origin: {seen}")
    names = [name for each in seen for name, _ in each.fields]
    check(b"x-hidden" not in names, f"a field of the hidden request reached the origin: {seen}")
    # Whose answer each is: the numbers of the requests in the order in which they arrived.
    whole = [each.number for each in seen if each.whole]
    passed = [int(fields[MARK]) for _, fields, _ in answers if MARK in fields]
    check(passed == whole, f"the visitor got answers to {passed}, the origin answered {whole}: {seen}")
    try:
        # An exchange is counted when it is over, which may be a moment after its last byte.
        wait_for("the count", lambda: (counted(engine) - before)["2xx"] >= len(whole), seconds=2)
    except Failed:
        pass
    edge = counted(engine) - before
    check(edge["2xx"] == len(whole), f"the edge counted {dict(edge)}, the origin answered {len(whole)}: {seen}")
    check(
        len(seen) <= sum(edge.values()) <= len(answers) + edge["none"],
        f"the edge counted {dict(edge)}, the visitor got {len(answers)} answers, the origin saw {seen}",
    )
    return seen


@case("smuggling-corpus", 240)
def smuggling(world):
    """For no case does the origin see another number of requests than the edge; what is hidden in a body stays there."""
    cases = corpus()
    origin = StrictOrigin()
    try:
        tunnel = world.forward(origin.port, "--name", "smuggling")
        host, engine = tunnel.host.encode(), world.engine()
        fates, statuses, alike, sent = {}, collections.Counter(), set(), 0
        for probe in probes(cases, host):
            sent += 1
            before, mark = counted(engine), origin.mark()
            try:
                answers = converse(world, tunnel, probe, host)
                seen = judge(probe, before, engine, origin, mark, answers)
                # Whatever a probe left on a connection to the origin would come to light in a stranger's next request.
                before, mark = counted(engine), origin.mark()
                with Visitor(world, tunnel) as stranger:
                    stranger.send(request(b"/after-%d" % probe.number, host))
                    got = stranger.answer()
                check(got and got[2] == b"/after-%d" % probe.number, f"a stranger's next request was answered with {got}")
                judge(probe, before, engine, origin, mark, [got])
            except Failed as error:
                raise Failed(f"{probe.label}: {error}; sent {shorten(probe.bytes, 500)}") from error
            # A case counts by the body with which it came furthest.
            fate = "forwarded" if seen else "refused" if answers else "closed"
            fates[probe.case_number] = max(fates.get(probe.case_number, fate), fate, key=FATES.index)
            statuses[answers[0][0] if answers else "none"] += 1
            names = (name for each in seen[:1] for name, _ in each.fields)
            alike.update(name.decode() for name in names if FRAMING.get(looks_like(name.decode()), name) != name)
    finally:
        origin.close()
    count = collections.Counter(fates.values())
    split = ", ".join(f"{count[fate]} {fate}" for fate in reversed(FATES))
    first = ", ".join(f"{times} × {status}" for status, times in sorted(statuses.items(), key=str))
    passed = f"; look-alikes of framing fields passed on: {', '.join(sorted(alike))}" if alike else ""
    return f"{len(cases)} cases: {split}; {sent} probes, first answers {first}{passed}"
