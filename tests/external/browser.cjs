// Loads one page in Chromium and prints what became of it as JSON. Called by client_chromium.py with its wishes as JSON.
const { chromium } = require("playwright-core");

// How long the page may take to load, and its script to settle, in milliseconds.
const PATIENCE = 20_000;

async function main(wish) {
  const flags = [
    `--ignore-certificate-errors-spki-list=${wish.key}`,
    // Nothing but names under .localhost exists for this browser.
    "--host-resolver-rules=MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ];
  if (wish.root) flags.push("--no-sandbox");
  const browser = await chromium.launch({ executablePath: wish.chromium, headless: true, args: flags });
  try {
    const page = await (await browser.newContext()).newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => {
      // A browser asks for an icon by itself; a site need not have one.
      if (message.type() === "error" && !message.location().url.endsWith("/favicon.ico")) errors.push(message.text());
    });
    const response = await page.goto(wish.url, { timeout: PATIENCE, waitUntil: "load" });
    const texts = {};
    if (wish.script === "settled") {
      const settled = () => ["sse", "ws"].every((id) => !["waiting", "0", "0,1"].includes(document.getElementById(id).textContent));
      await page.waitForFunction(settled, null, { timeout: PATIENCE });
      for (const id of ["sse", "ws"]) texts[id] = await page.textContent(`#${id}`);
    }
    const protocol = await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
    const told = { status: response.status(), title: await page.title(), protocol, texts, errors };
    process.stdout.write(JSON.stringify(told));
  } finally {
    await browser.close();
  }
}

main(JSON.parse(process.argv[2])).catch((error) => {
  process.stderr.write(`${error.stack || error}\n`);
  process.exitCode = 1;
});
