"""A filter that does on request what filters should not."""

import json
import os
import random
import socket
import sys

from wit_world import exports
from wit_world.imports import random as host_random
from wit_world.imports.types import Reply, Verdict_Continue, Verdict_Respond

answered = 0


def say(of):
    return Verdict_Respond(Reply(200, [], str(of).encode()))


def attempt(what):
    try:
        return what()
    except (OSError, LookupError) as error:
        return type(error).__name__


class Plugin(exports.Plugin):
    def schema(self):
        return '{"type":"object"}'

    def configure(self, config):
        pass


class OnRequest(exports.OnRequest):
    def on_request(self, head, exchange):
        global answered
        match head.path().rsplit("/", 1)[-1]:
            case "loop":
                while True:
                    pass
            case "throw":
                raise ValueError("as it was asked to")
            case "memory":
                everything = []
                while True:
                    everything.append(bytearray(1 << 20))
            case "stack":
                return say(down(0))
            case "log":
                print("said by the filter", file=sys.stderr)
                return say("logged")
            case "random":
                return say(f"{random.random()} {host_random.bytes(16)}")
            case "world":
                seen = {
                    "environment": dict(os.environ),
                    "files": attempt(lambda: os.listdir("/")),
                    "address": attempt(lambda: socket.getaddrinfo("localhost", 80)),
                    "connection": attempt(lambda: socket.create_connection(("127.0.0.1", 80), 1)),
                }
                return say(json.dumps(seen))
            case "count":
                answered += 1
                return say(answered)
            case _:
                return Verdict_Continue()


def down(n):
    return down(n + 1) + 1
