"""Turns user agents away that its table names."""

import json
from dataclasses import dataclass

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.plugin import ConfigError
from wit_world.imports.context import Exchange, RequestHead
from wit_world.imports.types import Reason, Refusal, Verdict, Verdict_Continue, Verdict_Refuse

# The filter's table in the engine's configuration.
SCHEMA = {
    "type": "object",
    "properties": {
        "unwelcome": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Words in `User-Agent`, in lower case, that are not welcome.",
        },
    },
    "required": ["unwelcome"],
    "additionalProperties": False,
}


@dataclass
class Config:
    unwelcome: list[str]


config: Config


class Plugin(exports.Plugin):
    def schema(self) -> str:
        return json.dumps(SCHEMA)

    def configure(self, text: str) -> None:
        global config
        config = Config(**json.loads(text))
        if "" in config.unwelcome:
            raise Err(ConfigError(f"unwelcome.{config.unwelcome.index('')}", "a word has letters"))


class OnRequest(exports.OnRequest):
    def on_request(self, head: RequestHead, exchange: Exchange) -> Verdict:
        shown = head.fields().get("user-agent")
        agent = shown[0].decode(errors="replace").lower() if shown else ""
        for word in config.unwelcome:
            if word in agent:
                # The visitor is told what every refusal tells; the operator's log has the rest.
                return Verdict_Refuse(Refusal(Reason.POLICY, f"`{word}`", None))
        head.fields().set("x-agent-seen", b"yes")
        return Verdict_Continue()
