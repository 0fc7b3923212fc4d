"""Lets requests with a known key in, as the one it belongs to: an auth mode of its own.

Keys are long and random, so their SHA-256 is enough to know them by; the table holds nothing that opens a door.

    [plugin.api-key]
    component = "api_key_py.wasm"
    stage = "identity"
    establish-identity = true

    [policy.edge]
    filters = [{ use = "api-key", keys = { ada = "sha256 of ada's key, in hexadecimal" } }]
"""

import hashlib
import hmac
import json
from dataclasses import dataclass

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.plugin import ConfigError
from wit_world.imports import store
from wit_world.imports.context import Exchange, NotEstablished, RequestHead
from wit_world.imports.types import (
    Failure_Internal,
    Identity,
    Reason,
    Refusal,
    Stay,
    Stay_No,
    Stay_Yes,
    Verdict,
    Verdict_Continue,
    Verdict_Refuse,
)

# How long attempts of one address are counted.
WINDOW_MS = 60_000

# Where an exchange keeps by whose key it was let in, and which.
OWNER = "owner"

SCHEMA = {
    "type": "object",
    "properties": {
        "keys": {
            "type": "object",
            "additionalProperties": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
            "description": "Each owner's key, by its SHA-256 in hexadecimal.",
        },
        "field": {"type": "string", "default": "x-api-key", "description": "The field it comes in."},
        "tries": {
            "type": "integer",
            "minimum": 1,
            "default": 20,
            "description": "How many wrong keys one address may try in a minute.",
        },
    },
    "required": ["keys"],
    "additionalProperties": False,
}


@dataclass
class Config:
    keys: dict[str, str]
    field: str = "x-api-key"
    tries: int = 20

    def owner(self, key: bytes) -> str | None:
        """Whose key this is. Every key is compared, so that the time says nothing."""
        shown = hashlib.sha256(key).hexdigest()
        owner = None
        for name, known in self.keys.items():
            if hmac.compare_digest(known.lower(), shown):
                owner = name
        return owner


config: Config


class Plugin(exports.Plugin):
    def schema(self) -> str:
        return json.dumps(SCHEMA)

    def configure(self, text: str) -> None:
        global config
        config = Config(**json.loads(text))
        known: dict[str, str] = {}
        for owner, key in config.keys.items():
            if (other := known.setdefault(key.lower(), owner)) != owner:
                raise Err(ConfigError(f"keys.{owner}", f"it is the key of `{other}` as well"))


class OnRequest(exports.OnRequest):
    def on_request(self, head: RequestHead, exchange: Exchange) -> Verdict:
        fields = head.fields()
        shown = fields.get(config.field)
        if len(shown) != 1:
            return refuse(Reason.MISSING_TOKEN)
        # Who has guessed too often is not heard for a while, right or wrong.
        tried = f"tries {exchange.client_address()}"
        if count(tried, 0) >= config.tries:
            return refuse(Reason.RATE_LIMITED, retry_after_ms=WINDOW_MS)
        owner = config.owner(shown[0])
        if owner is None:
            count(tried, 1)
            return refuse(Reason.INVALID_TOKEN)
        # The service has no use for it.
        fields.remove(config.field)
        # By which key it was let in, as the table has it.
        exchange.set_variable(OWNER, f"{owner} {config.keys[owner]}".encode())
        try:
            exchange.establish_identity(Identity(owner, None, None, None))
        except Err as error:
            if error.value == NotEstablished.ALREADY_KNOWN:
                return refuse(Reason.AMBIGUOUS_CREDENTIALS)
            raise Err(Failure_Internal("set `establish-identity = true` for this plugin")) from error
        return Verdict_Continue()


class OnRejudge(exports.OnRejudge):
    def on_rejudge(self, exchange: Exchange) -> Stay:
        kept = exchange.variable(OWNER) or b""
        owner, _, key = kept.decode().rpartition(" ")
        known = key and config.keys.get(owner) == key
        return Stay_Yes() if known else Stay_No(Reason.INVALID_TOKEN)


def count(name: str, by: int) -> int:
    """So many attempts; where no more can be counted, too many."""
    try:
        return store.add(name, by, WINDOW_MS)
    except Err:
        return config.tries


def refuse(reason: Reason, *, retry_after_ms: int | None = None) -> Verdict:
    return Verdict_Refuse(Refusal(reason, None, retry_after_ms))
