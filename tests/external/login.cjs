// Goes through pages in Chromium step by step and prints what it saw as JSON. Called by client_login.py with its wishes as JSON.
const { chromium } = require("playwright-core");

// How long a step may take, in milliseconds.
const PATIENCE = 20_000;

async function main(wish) {
  const flags = [
    `--ignore-certificate-errors-spki-list=${wish.key}`,
    // Nothing but this machine exists for this browser.
    "--host-resolver-rules=MAP localhost 127.0.0.1, MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ];
  if (wish.root) flags.push("--no-sandbox");
  const browser = await chromium.launch({ executablePath: wish.chromium, headless: true, args: flags });
  const seen = [];
  const errors = [];
  try {
    const context = await browser.newContext({ javaScriptEnabled: wish.scripts ?? true, viewport: wish.viewport, colorScheme: wish.colours });
    context.setDefaultTimeout(PATIENCE);
    const page = await context.newPage();
    page.on("pageerror", (error) => errors.push(String(error)));
    page.on("console", (message) => {
      // Browsers ask for an icon by themselves, and report each answer that is no success.
      const noise = message.location().url.endsWith("/favicon.ico") || message.text().startsWith("Failed to load resource");
      if (message.type() === "error" && !noise) errors.push(message.text());
    });
    let status = 0;
    page.on("response", (response) => {
      if (response.request().isNavigationRequest() && response.frame() === page.mainFrame()) status = response.status();
    });
    for (const [what, ...how] of wish.steps) {
      // The page gives a field or button the focus once it is drawn.
      if (what === "type" || what === "press") await page.locator(":focus").first().waitFor({ state: "attached" });
      if (what === "open") await page.goto(how[0], { waitUntil: "load" });
      else if (what === "fill") await page.fill(how[0], how[1]);
      else if (what === "click") await page.click(how[0]);
      // As somebody does who has a keyboard alone.
      else if (what === "type") await page.keyboard.type(how[0]);
      else if (what === "press") await page.keyboard.press(how[0]);
      else if (what === "at") await page.waitForURL(new RegExp(how[0]), { waitUntil: "load" });
      else if (what === "sees") await page.getByText(how[0]).first().waitFor();
      else if (what === "fetch") {
        const asked = async ([url, method]) => {
          const answer = await fetch(url, { method });
          return { status: answer.status, text: await answer.text() };
        };
        seen.push(await page.evaluate(asked, how));
      } else if (what === "look") {
        const roles = await page.locator("body").ariaSnapshot();
        const cookies = (await context.cookies()).map(({ name, domain, path, secure, httpOnly, sameSite }) => ({ name, domain, path, secure, httpOnly, sameSite }));
        const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        seen.push({ url: page.url(), status, title: await page.title(), text: await page.innerText("body"), roles, cookies, width });
      } else if (what === "shot") await page.screenshot({ path: how[0], fullPage: true });
      else throw new Error(`no such step: ${what}`);
    }
    process.stdout.write(JSON.stringify({ seen, errors }));
  } catch (error) {
    const pages = browser.contexts().flatMap((context) => context.pages());
    const where = await Promise.all(pages.map(async (page) => `${page.url()}: ${await page.innerText("body").catch(() => "")}`));
    throw new Error(`${error.message} at ${where.join("; ")}; ${errors.join("; ")}`);
  } finally {
    await browser.close();
  }
}

main(JSON.parse(process.argv[2])).catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
