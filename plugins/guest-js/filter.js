/**
 * What a filter in JavaScript is written with. A filter is a class:
 *
 * - `static schema` is the JSON Schema of its table;
 * - its constructor is given the table, and throws a {@link ConfigError} for what no schema can say;
 * - each phase it takes part in is a method: `onRequest(head, exchange)`, `onRejudge(exchange)`, …
 *
 * `export const { plugin, onRequest } = filter(TheClass)` makes a component's exports of it, `plugin` and one for each
 * phase. What a method gets and answers is in `wit/`; the functions here write the answers, and read fields as text.
 *
 * @import { RequestHead, ResponseHead, Exchange } from "adit:filter/context@0.1.0"
 * @import { Reason, RedirectKind, Upgrade, Verdict, Stay, Revision } from "adit:filter/types@0.1.0"
 */

/** What is wrong with a filter's table. */
export class ConfigError extends Error {
  /**
   * @param {string} key a dotted path into the table, such as `allow.0`
   * @param {string} message what is wrong, and what would be right
   */
  constructor(key, message) {
    super(message);
    this.key = key;
  }
}

/** Something a decision needs did not answer; thrown by a phase. Never a refusal. */
export class Unavailable extends Error {}

/** The phases, as a component exports them. */
const PHASES = [
  "onConnect",
  "onRequest",
  "onResponse",
  "onRequestBody",
  "onResponseBody",
  "onStream",
  "onDatagram",
  "onRejudge",
  "onLog",
];

/**
 * A component's exports, made of a class.
 * @param {any} Filter
 * @returns {Record<string, Record<string, (...given: any[]) => any>>}
 */
export function filter(Filter) {
  /** @type {any} */
  let instance;
  /** @type {Record<string, Record<string, (...given: any[]) => any>>} */
  const exports = {
    plugin: {
      schema: () => JSON.stringify(Filter.schema),
      configure(config) {
        try {
          instance = new Filter(JSON.parse(config));
        } catch (/** @type {any} */ error) {
          // What is thrown and is no `Error` is an answer; an `Error` would be a trap.
          throw { key: error.key, message: String(error.message ?? error) };
        }
      },
    },
  };
  for (const phase of PHASES) {
    if (!(phase in Filter.prototype)) continue;
    exports[phase] = {
      [phase](...given) {
        try {
          return instance[phase](...given);
        } catch (/** @type {any} */ error) {
          const tag = error instanceof Unavailable ? "unavailable" : "internal";
          throw { tag, val: String(error.message ?? error) };
        }
      },
    };
  }
  return exports;
}

// Answers about a request, most of which do for a connection or a piece as well.

/** The next filter decides about this request. */
export const pass = /** @type {const} */ ({ tag: "continue" });
/** Close without a word. */
export const close = /** @type {const} */ ({ tag: "close" });

/**
 * A wish for the upgrade that was asked for.
 * @param {Upgrade} to
 * @returns {Verdict}
 */
export const upgrade = (to) => ({ tag: "upgrade", val: to });

/**
 * A refusal. `detail` is for the operator's log.
 * @param {Reason} reason
 * @param {{ detail?: string, retryAfterMs?: bigint }} [more]
 * @returns {Verdict & { tag: "refuse" }}
 */
export const refuse = (reason, more = {}) => ({ tag: "refuse", val: { reason, ...more } });

/**
 * A response in the service's place.
 * @param {number} status
 * @param {string} [body]
 * @param {Record<string, string>} [fields]
 * @returns {Verdict & { tag: "respond" }}
 */
export const respond = (status, body = "", fields = {}) => ({
  tag: "respond",
  val: {
    status,
    headers: Object.entries(fields).map(([name, value]) => ({ name, value: bytes(value) })),
    body: bytes(body),
  },
});

/**
 * Sends the visitor elsewhere.
 * @param {string} location
 * @param {RedirectKind} [kind]
 * @returns {Verdict}
 */
export const redirect = (location, kind = "found") => ({ tag: "redirect", val: { kind, location } });

// Answers about an exchange that is open, when the rules have changed.

/** Nothing against it. */
export const stay = /** @type {const} */ ({ tag: "yes" });
/** Nothing against it, and its upgrade is one that this filter grants. */
export const stayUpgraded = /** @type {const} */ ({ tag: "upgraded" });
/**
 * It has to end.
 * @param {Reason} reason
 * @returns {Stay}
 */
export const end = (reason) => ({ tag: "no", val: reason });

// Fields and variables as text.

/**
 * The first value of a field; none if the head has no such field, or it is not UTF-8.
 * @param {RequestHead | ResponseHead} head
 * @param {string} name
 */
export function field(head, name) {
  const [value] = head.fields().get(name);
  return value && text(value);
}

/**
 * Puts a value into a field, in place of all there are.
 * @param {RequestHead | ResponseHead} head
 * @param {string} name
 * @param {string} value
 */
export const setField = (head, name, value) => head.fields().set(name, bytes(value));

/**
 * Keeps a text for later phases of the exchange.
 * @param {Exchange} exchange
 * @param {string} name
 * @param {string} value
 */
export const keep = (exchange, name, value) => exchange.setVariable(name, bytes(value));

/**
 * What this filter has kept for the exchange.
 * @param {Exchange} exchange
 * @param {string} name
 */
export function kept(exchange, name) {
  const value = exchange.variable(name);
  return value && text(value);
}

/**
 * A text in UTF-8.
 * @param {string} of
 */
export const bytes = (of) => new TextEncoder().encode(of);

/**
 * The text of some UTF-8; none if it is not.
 * @param {Uint8Array} octets
 */
export function text(octets) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(octets);
  } catch {
    return undefined;
  }
}
