// A certified OpenID provider on a port of this machine. Words on standard input change it: "rotate" gives it another key, "down"
// makes it hang up on everybody but its own pages, "up" ends that. Called by client_login.py.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const wish = JSON.parse(process.argv[2]);
const { default: Provider } = await import(pathToFileURL(wish.module));
const issuer = `http://localhost:${wish.port}`;

let rotations = 0;
function provider() {
  rotations += 1;
  const kind = rotations % 2 ? ["ec", { namedCurve: "P-256" }, "ES256"] : ["rsa", { modulusLength: 2048 }, "RS256"];
  const { privateKey } = generateKeyPairSync(kind[0], kind[1]);
  const key = { ...privateKey.export({ format: "jwk" }), kid: `key-${rotations}`, use: "sig", alg: kind[2] };
  const made = new Provider(issuer, {
    clients: [
      {
        client_id: "adit",
        client_secret: wish.secret,
        redirect_uris: [wish.redirect],
        response_types: ["code"],
        grant_types: ["authorization_code"],
        id_token_signed_response_alg: kind[2],
      },
    ],
    jwks: { keys: [key] },
    cookies: { keys: ["of these tests"] },
    pkce: { required: () => true, methods: ["S256"] },
    claims: { openid: ["sub", "groups"], email: ["email", "email_verified"], profile: ["name", "picture"] },
    async findAccount(_, id) {
      const claims = { sub: id, name: `Dr ${id}`, email: `${id}@example.com`, email_verified: id !== "mallory", groups: id === "grace" ? ["guests"] : ["staff"] };
      return { accountId: id, claims: async () => claims };
    },
  });
  made.on("server_error", (_, error) => console.error(error));
  return made.callback();
}

let callback = provider();
let down = false;
const server = createServer((request, response) => {
  if (down && /^\/(token|jwks|me|\.well-known)/.test(request.url)) request.socket.destroy();
  else callback(request, response);
});
server.listen(wish.port, "127.0.0.1", () => console.log("listening"));
createInterface({ input: process.stdin }).on("line", (word) => {
  if (word === "rotate") callback = provider();
  else down = word === "down";
  console.log(word);
});
