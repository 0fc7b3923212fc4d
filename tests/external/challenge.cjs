// Opens an address behind a challenge in Chromium and prints what became of it as JSON. Called by client_challenge.py.
const { chromium } = require("playwright-core");

// How long the page may take in all, in milliseconds.
const PATIENCE = 20_000;

async function main(wish) {
  const flags = [
    `--ignore-certificate-errors-spki-list=${wish.key}`,
    "--host-resolver-rules=MAP *.localhost 127.0.0.1, MAP localhost 127.0.0.1, MAP * ~NOTFOUND",
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
    const context = await browser.newContext({ javaScriptEnabled: wish.scripts, viewport: wish.viewport || null });
    const page = await context.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(String(error)));
    const at = {};
    const elsewhere = [];
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.pathname.endsWith("/challenge/callback")) at.back ??= performance.now();
      if (!url.hostname.endsWith("localhost")) elsewhere.push(url.href);
    });
    page.on("response", (response) => {
      if (new URL(response.url()).pathname === "/rstream/challenge") at.page ??= performance.now();
    });
    if (wish.throttle) {
      const tools = await context.newCDPSession(page);
      await tools.send("Emulation.setCPUThrottlingRate", { rate: wish.throttle });
    }
    await page.goto(wish.url, { timeout: PATIENCE, waitUntil: "load" });
    if (wish.scripts) {
      await page.waitForURL((url) => url.href === wish.url, { timeout: PATIENCE });
    }
    const told = {
      url: page.url(),
      title: await page.title(),
      text: (await page.textContent("body")).trim(),
      // The names that a screen reader says.
      roles: await page.locator("h1, [role=status], [role=alert], progress").evaluateAll((all) => all.map((one) => one.getAttribute("role") || one.tagName.toLowerCase())),
      lang: wish.scripts ? await page.evaluate(() => document.documentElement.lang) : null,
      work: at.back && at.page ? at.back - at.page : null,
      cookies: (await context.cookies()).map(({ name, secure, httpOnly, sameSite, domain }) => ({ name, secure, httpOnly, sameSite, domain })),
      elsewhere,
      errors,
    };
    if (wish.screenshot) await page.screenshot({ path: wish.screenshot });
    process.stdout.write(JSON.stringify(told));
  } finally {
    await browser.close();
  }
}

main(JSON.parse(process.argv[2])).catch((error) => {
  process.stderr.write(`${error.stack || error}\n`);
  process.exitCode = 1;
});
