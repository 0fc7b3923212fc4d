"""What every case uses: the list of cases, subprocesses with a bound, ports, and words for what went wrong."""

import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
CACHE = HERE / ".cache"
ADIT = os.environ.get("ADIT_BIN", "")
# Longest a step may take that only waits for a process to come up, in seconds.
START_SECONDS = 20.0

CASES = []


class Skip(Exception):
    """The case cannot run here; the text names what is missing."""


class Refused(Skip):
    """The case cannot run here because a registry does not hand out the client."""


class Failed(Exception):
    """The case ran and did not show what it should."""


def case(name, seconds):
    """Registers a function as a case that may take `seconds`; it gets the `World` and may return figures to print."""

    def register(function):
        CASES.append((name, seconds, function))
        return function

    return register


def check(condition, message):
    if not condition:
        raise Failed(message)


def equal(what, got, want):
    if got != want:
        raise Failed(f"{what}: got {shorten(got)}, want {shorten(want)}")


def shorten(value, limit=300):
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def free_port():
    """A port that was free a moment ago; the caller listens on it at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(argv, *, seconds=30, stdin=None, ok=(0,), env=None, cwd=None):
    """Runs a command to its end and returns the completed process; other exit codes than `ok` fail the case."""
    argv = [str(a) for a in argv]
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=seconds,
            env=env,
            cwd=cwd,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{argv[0]} did not end within {seconds} s: {tail(error.stderr or b'')}") from error
    if ok is not None and done.returncode not in ok:
        raise Failed(f"{' '.join(argv[:3])} … exited {done.returncode}: {tail(done.stderr) or tail(done.stdout)}")
    return done


def tail(output, limit=600):
    if isinstance(output, bytes):
        output = output.decode("utf-8", "replace")
    # Colours, and the facts that curl is asked to add, explain nothing.
    output = re.sub(r"\x1b\[[0-9;]*m|^\{\".*\}$", "", output, flags=re.M).strip()
    return output if len(output) <= limit else "…" + output[-limit:]


def wait_for(what, probe, seconds=START_SECONDS):
    """Asks `probe` until it gives something true and returns that."""
    end = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.02)


def listening(port, host="127.0.0.1"):
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0


class Daemon:
    """A process that runs beside a case. Its output is kept line by line, and `stop` leaves nothing of it behind."""

    def __init__(self, argv, *, env=None, cwd=None, stdin=subprocess.DEVNULL):
        self.name = pathlib.Path(str(argv[0])).name + " " + " ".join(str(a) for a in argv[1:2])
        self.out = []
        self.err = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            [str(a) for a in argv],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.err), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, pipe, lines):
        for line in pipe:
            with self._changed:
                lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._changed.notify_all()

    def alive(self):
        return self.process.poll() is None

    def log(self):
        return tail("\n".join(self.err[-12:] or self.out[-12:]))

    def line(self, what, matches, seconds=START_SECONDS, lines=None):
        """Waits for an output line (stdout unless `lines` says otherwise) for which `matches` gives something true; returns that."""
        lines = self.out if lines is None else lines
        end = time.monotonic() + seconds
        seen = 0
        with self._changed:
            while True:
                while seen < len(lines):
                    found = matches(lines[seen])
                    seen += 1
                    if found:
                        return found
                left = end - time.monotonic()
                if left <= 0 or (not self.alive() and not self._reading()):
                    state = "is running" if self.alive() else f"exited {self.process.returncode}"
                    raise Failed(f"{self.name} ({state}) did not print {what}: {self.log()}")
                self._changed.wait(min(left, 0.1))

    def _reading(self):
        return any(reader.is_alive() for reader in self._readers)

    def stop(self, how=signal.SIGTERM, seconds=10):
        """Asks it to stop and returns its exit code; what does not go by itself in time is killed with its children."""
        if self.alive():
            self.process.send_signal(how)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        code = self.process.wait()
        for reader in self._readers:
            reader.join(2)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


def tool(name, *, package=None):
    """The path of a command, installed with apt-get when that may be done here; otherwise the case is skipped by name."""
    path = shutil.which(name) or next((p for p in (f"/usr/sbin/{name}", f"/usr/bin/{name}") if os.access(p, os.X_OK)), None)
    if path:
        return path
    package = package or name
    if os.geteuid() == 0 and shutil.which("apt-get"):
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        if subprocess.run(install, env=environment, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update", "-qq"], env=environment, capture_output=True, check=False)
            subprocess.run(install, env=environment, capture_output=True, check=False)
        path = shutil.which(name) or (f"/usr/sbin/{name}" if os.access(f"/usr/sbin/{name}", os.X_OK) else None)
        if path:
            return path
    raise Skip(f"{name} is missing (Debian package {package})")


def once(name, build):
    """Runs `build(directory)` unless it was done before: `.cache/NAME` appears whole or not at all."""
    done = CACHE / name
    if not done.exists():
        partial = CACHE / (name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        build(partial)
        partial.rename(done)
    return done
