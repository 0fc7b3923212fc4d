// Opens WebSockets for pages of some origins, and for no others.
//
//     [plugin.ws-origin]
//     component = "ws_origin_js.wasm"
//     stage = "upgrade"
//
//     [policy.edge]
//     filters = [{ use = "ws-origin", origins = ["https://app.example.com"] }]
//     [project.default]
//     policies = ["edge"]
//     upgrades = []

/** @import { Exchange, RequestHead } from "adit:filter/context@0.1.0" */

import {
  ConfigError,
  end,
  field,
  filter,
  keep,
  kept,
  pass,
  refuse,
  stay,
  stayUpgraded,
  upgrade,
} from "../../guest-js/filter.js";

class WsOrigin {
  static schema = {
    type: "object",
    properties: {
      origins: { type: "array", items: { type: "string" }, description: "Origins, as browsers write them." },
    },
    required: ["origins"],
    additionalProperties: false,
  };

  /** @param {{ origins: string[] }} config */
  constructor({ origins }) {
    if (origins.length === 0) throw new ConfigError("origins", "name an origin");
    this.origins = new Set(origins);
  }

  /** @param {RequestHead} head @param {Exchange} exchange */
  onRequest(head, exchange) {
    if (exchange.upgrade() !== "websocket") return pass;
    const origin = field(head, "origin") ?? "";
    keep(exchange, "origin", origin);
    return this.origins.has(origin) ? upgrade("websocket") : refuse("origin");
  }

  /** @param {Exchange} exchange */
  onRejudge(exchange) {
    if (exchange.upgrade() !== "websocket") return stay;
    return this.origins.has(kept(exchange, "origin") ?? "") ? stayUpgraded : end("origin");
  }
}

export const { plugin, onRequest, onRejudge } = filter(WsOrigin);
