// A filter that does on request what filters should not.

import { bytes as random } from "adit:filter/random@0.1.0";

const text = (of) => Uint8Array.from(of, (one) => one.charCodeAt(0));
const say = (of) => ({ tag: "respond", val: { status: 200, headers: [], body: text(String(of)) } });

export const plugin = {
  schema: () => '{"type":"object"}',
  configure() {},
};

let answered = 0;

export const onRequest = {
  onRequest(head) {
    switch (head.path().split("/").pop()) {
      case "loop":
        for (;;);
      case "throw":
        throw new Error("as it was asked to");
      case "memory":
        for (const all = []; ; ) all.push(new Uint8Array(1 << 20).fill(1));
      case "stack": {
        const down = (n) => down(n + 1) + 1;
        return say(down(0));
      }
      case "log":
        console.error("said by the filter");
        return say("logged");
      case "random":
        return say(`${Math.random()} ${random(16)}`);
      case "world":
        return say(JSON.stringify([typeof process, typeof require]));
      case "count":
        answered += 1;
        return say(answered);
      default:
        return { tag: "continue" };
    }
  },
};
