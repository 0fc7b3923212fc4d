// Turns user agents away that its table names.

/** @import { Exchange, RequestHead } from "adit:filter/context@0.1.0" */

import { ConfigError, field, filter, pass, refuse, setField } from "./vendor/adit/plugins/guest-js/filter.js";

class Filter {
  /** The filter's table in the engine's configuration. */
  static schema = {
    type: "object",
    properties: {
      unwelcome: {
        type: "array",
        items: { type: "string" },
        description: "Words in `User-Agent`, in lower case, that are not welcome.",
      },
    },
    required: ["unwelcome"],
    additionalProperties: false,
  };

  /** @param {{ unwelcome: string[] }} config */
  constructor({ unwelcome }) {
    const empty = unwelcome.indexOf("");
    if (empty >= 0) throw new ConfigError(`unwelcome.${empty}`, "a word has letters");
    this.unwelcome = unwelcome;
  }

  /** @param {RequestHead} head */
  onRequest(head) {
    const agent = (field(head, "user-agent") ?? "").toLowerCase();
    const word = this.unwelcome.find((word) => agent.includes(word));
    // The visitor is told what every refusal tells; the operator's log has the rest.
    if (word !== undefined) return refuse("policy", { detail: `\`${word}\`` });
    setField(head, "x-agent-seen", "yes");
    return pass;
  }
}

export const { plugin, onRequest } = filter(Filter);
