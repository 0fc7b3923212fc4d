"""Runs the cases one after another, prints a line for each, and ends with how many passed, failed and were skipped."""

import importlib
import os
import pathlib
import signal
import sys
import time
import traceback

from support import ADIT, CASES, Failed, Refused, Skip
from world import World

HERE = pathlib.Path(__file__).resolve().parent


class OutOfTime(Exception):
    """The case took longer than it may."""


def out_of_time(_signal, _frame):
    raise OutOfTime


def one(world, name, seconds, function):
    """Runs one case; returns its verdict and what to say about it."""
    signal.signal(signal.SIGALRM, out_of_time)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return "ok", function(world)
    except Skip as reason:
        return "skip", reason
    except Failed as reason:
        return "FAIL", str(reason)
    except OutOfTime:
        return "FAIL", f"took longer than {seconds} s"
    except Exception as error:  # a client library's own exception is a finding like any other
        if os.environ.get("ADIT_EXTERNAL_TRACE"):
            traceback.print_exc()
        return "FAIL", f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        world.after_case(name)


def main(wanted):
    for module in sorted(HERE.glob("client_*.py")):
        importlib.import_module(module.stem)
    if wanted == ["--list"]:
        print("\n".join(name for name, _, _ in CASES))
        return 0
    chosen = [c for c in CASES if not wanted or any(c[0].startswith(w) for w in wanted)]
    unknown = [w for w in wanted if not any(c[0].startswith(w) for c in CASES)]
    if unknown:
        print(f"no case is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    if not os.access(ADIT, os.X_OK):
        print(f"ADIT_BIN={ADIT or '(unset)'} cannot be executed; start this through tests/external/run", file=sys.stderr)
        return 2
    # Beginnings of names whose client a registry may refuse even where every other skip counts as a failure.
    excused = tuple(os.environ.get("ADIT_EXTERNAL_MAY_SKIP", "").split())
    counts, unexcused = {"ok": 0, "FAIL": 0, "skip": 0}, 0
    world = World()
    try:
        for name, seconds, function in chosen:
            started = time.monotonic()
            verdict, text = one(world, name, seconds, function)
            counts[verdict] += 1
            unexcused += verdict == "skip" and not (isinstance(text, Refused) and name.startswith(excused))
            text = " ".join(str(text).split()) if text else ""
            took = f"{time.monotonic() - started:.1f} s"
            print(f"{verdict:4} {name} ({text + ', ' if text else ''}{took})", flush=True)
    finally:
        world.close()
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    strict = os.environ.get("CI") == "true"
    return 1 if counts["FAIL"] or (strict and unexcused) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
