"use strict";
(() => {
  const work = document.getElementById("work").dataset;
  const status = document.getElementById("status");
  const progress = document.getElementById("progress");
  const bits = Number(work.bits), pieces = Number(work.pieces);

  const fail = (text) => {
    progress.hidden = true;
    status.textContent = text;
    status.className = "error";
    document.getElementById("retry").href = new URL("/", work.back).href;
    document.getElementById("again").hidden = false;
  };

  // A browser that keeps no cookies would come back for ever.
  const key = "tries " + work.host, now = Date.now();
  let tries = [];
  try {
    tries = JSON.parse(sessionStorage.getItem(key) || "[]").filter((time) => now - time < 30000);
    sessionStorage.setItem(key, JSON.stringify([...tries, now]));
  } catch {
    // Without storage there is no count, and most likely no cookie either.
  }
  if (tries.length >= 3) {
    fail("Your browser does not keep cookies from " + work.host + ". Allow them, then try again.");
    return;
  }

  // SHA-256 (FIPS 180-4) of one short block. The browser's own is asynchronous, which costs more than the hash.
  const K = new Int32Array(64), H = new Int32Array(8);
  const root = (number, power) => (Math.pow(number, power) * 4294967296) | 0;
  for (let number = 2, found = 0; found < 64; number++) {
    let prime = true;
    for (let divisor = 2; divisor * divisor <= number; divisor++) if (number % divisor === 0) prime = false;
    if (!prime) continue;
    if (found < 8) H[found] = root(number, 1 / 2);
    K[found++] = root(number, 1 / 3);
  }
  const block = new Uint8Array(64), words = new DataView(block.buffer), W = new Int32Array(64);
  const first = (length) => {
    block.fill(0, length);
    block[length] = 0x80;
    words.setUint32(60, length * 8);
    for (let t = 0; t < 16; t++) W[t] = words.getInt32(t * 4);
    for (let t = 16; t < 64; t++) {
      const x = W[t - 15], y = W[t - 2];
      const s = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const u = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      W[t] = (W[t - 16] + s + W[t - 7] + u) | 0;
    }
    let [a, b, c, d, e, f, g, h] = H;
    for (let t = 0; t < 64; t++) {
      const S = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const T = (h + S + ((e & f) ^ (~e & g)) + K[t] + W[t]) | 0;
      const U = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const V = (U + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + T) | 0; d = c; c = b; b = a; a = (T + V) | 0;
    }
    return (a + H[0]) | 0;
  };

  const numbers = [];
  let piece = 0, number = 0, length = 0;
  const begin = () => {
    const text = work.id + ":" + piece + ":";
    for (length = 0; length < text.length; length++) block[length] = text.charCodeAt(length);
    number = 0;
  };
  const done = () => {
    status.textContent = "Done. Taking you there.";
    const to = new URL(work.back);
    to.searchParams.set("request", work.request);
    to.searchParams.set("proof", numbers.join("."));
    location.replace(to.href);
  };
  const slice = () => {
    const until = performance.now() + 40;
    do {
      for (let n = 0; n < 256; n++) {
        const digits = String(number);
        for (let at = 0; at < digits.length; at++) block[length + at] = digits.charCodeAt(at);
        if (Math.clz32(first(length + digits.length)) >= bits) {
          numbers.push(digits);
          progress.value = ++piece;
          if (piece === pieces) return done();
          begin();
        } else {
          number++;
        }
      }
    } while (performance.now() < until);
    setTimeout(slice);
  };
  try {
    begin();
    slice();
  } catch (error) {
    fail("The check did not work in this browser: " + error.message);
  }
})();
