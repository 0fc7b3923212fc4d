//! What a credentials file holds, or every mistake in it with its place.
#![allow(clippy::unwrap_used, reason = "tests")]

use adit_config::Section;
use adit_plugins::identity::credentials::{CREDENTIALS_MAX, Credentials, HASHES_MAX, sha256};
use adit_plugins::identity::token::Permission;

/// An application's public key.
const KEY: &str = "30819b301006072a8648ce3d020106052b810400230381860004001488413\
    6d597e1d903d624202957a07e1dce88752a12ac1d75ee39272c043f6db73f851aefa6e6c81702b8aadd80d6fc49d782\
    81b0864f3beccda7dfda3c3ff1970072d4974dc8efcaa52e87c6f26a6a3a0f38567949d49be394aafbd7760bef3eb2e\
    68b0f236e1c85cee44075152f4a5974be5fd54d7f9a1060501ad5b28063c1a5f2";

fn read(text: &str) -> Result<Credentials, String> {
    let section = Section::parse("credentials.toml", text).unwrap();
    Credentials::read(&section, ["default", "shop"]).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

#[test]
fn the_sample_loads() {
    let credentials = read(include_str!("../../../config/examples/credentials.toml")).unwrap();
    assert_eq!(credentials.len(), 4);
    let deploy = &credentials.application("c-4f1d").unwrap().credential;
    assert_eq!((&*deploy.id, &*deploy.user_id), ("deploy", "c-4f1d"));
    let allowed = deploy.permissions.unwrap();
    assert!(allowed.contains(Permission::CreateTunnels));
    assert!(!allowed.contains(Permission::CreateStreams));
    assert!(credentials.application("deploy").is_none());

    // engine-api §8.3: the published personal token.
    let pat = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXBlIjoicGF0IiwidG9rZW5fZW5kcG9pbnQiOiIwYTFiMmMzZCIsImlhdCI6MTgwMDAwMDAwMCwiZXhwIjoxODMxNTM2MDAwfQ.jFV5WKrWdLgKlrjYu3JwEsCo8hGKUeqolKEd6GPbhHQ";
    let ada = credentials.token(&sha256(pat.as_bytes())).unwrap();
    assert_eq!(ada.user_id, "u-7");
    assert_eq!(ada.email.as_deref(), Some("ada@example.com"));
    assert!(ada.updated_at.is_some() && ada.expires == Some(1_956_441_600.0));

    let gate = credentials.get("gate").unwrap();
    assert!(gate.boundary.is_some() && !gate.revoked);
    assert!(credentials.get("old-phone").unwrap().revoked);
    assert!(credentials.certificate(&[0; 32]).is_none());
}

#[test]
fn nothing_written_is_nothing_stored() {
    assert!(read("").unwrap().is_empty());
}

#[test]
fn every_mistake_has_its_place() {
    let [hash, other] = [[1; 32], [2; 32]].map(|hash: [u8; 32]| hex(&hash));
    let many: Vec<String> = (0..=HASHES_MAX)
        .map(|n| format!("\"{}\"", hex(&sha256(&n.to_le_bytes()))))
        .collect();
    let table = |more: &str| format!("[[credential]]\nid = \"a\"\n{more}");
    let token = |more: &str| table(&format!("token-sha256 = [\"{hash}\"]\n{more}"));
    let cases = [
        (
            table(""),
            "1:1: credential.0: nothing proves it: write `public-key`, `token-sha256` or `certificate-sha256`",
        ),
        (
            "[[credential]]\npublic-key = \"00\"".to_owned(),
            "1:1: credential.0: `id` is missing",
        ),
        (
            token("secret = \"x\""),
            "4:1: credential.0.secret: unknown key `secret`, use one of",
        ),
        (
            "credentials = []".to_owned(),
            "1:1: credentials: unknown key `credentials`, did you mean `credential`?",
        ),
        (
            table("token-sha256 = [\"abc\"]"),
            "3:17: credential.0.token-sha256.0: not a SHA-256 hash, use 64 hexadecimal digits",
        ),
        (
            table(&format!(
                "certificate-sha256 = [\"{other}\", \"{other}00\"]"
            )),
            "3:91: credential.0.certificate-sha256.1: not a SHA-256 hash",
        ),
        (
            table(&format!("token-sha256 = [\"{hash}\", \"{hash}\"]")),
            "3:85: credential.0.token-sha256.1: credential `a` has the same hash",
        ),
        (
            format!(
                "{}\n[[credential]]\nid = \"b\"\ntoken-sha256 = [\"{hash}\"]",
                token("")
            ),
            "7:17: credential.1.token-sha256.0: credential `a` has the same hash",
        ),
        (
            format!(
                "{}\n[[credential]]\nid = \"a\"\ntoken-sha256 = [\"{other}\"]",
                token("")
            ),
            "6:6: credential.1.id: a second credential `a`",
        ),
        (
            table(&format!("token-sha256 = [{}]", many.join(", "))),
            "3:16: credential.0.token-sha256: more than 16 hashes",
        ),
        (
            table("public-key = \"key.pem\""),
            "3:14: credential.0.public-key: not a public key on P-521, use one in PEM or its DER form",
        ),
        (
            table(&format!("public-key = \"{KEY}00\"")),
            "3:14: credential.0.public-key: not a public key on P-521",
        ),
        (
            table(
                "public-key = \"-----BEGIN PRIVATE KEY-----\\nMAA=\\n-----END PRIVATE KEY-----\"",
            ),
            "3:14: credential.0.public-key: a private key, which the engine must not have",
        ),
        (
            format!(
                "[[credential]]\nid = \"a\"\npublic-key = \"{KEY}\"\n[[credential]]\nid = \"b\"\npublic-key = \"{KEY}\""
            ),
            "6:14: credential.1.public-key: application `a` has the same key",
        ),
        (
            token("client-id = \"c\""),
            "4:13: credential.0.client-id: of no use without the application's `public-key`",
        ),
        (
            token("projects = [\"shop\", \"shoe\"]"),
            "4:21: credential.0.projects.1: no project `shoe`, use default, shop",
        ),
        (
            token("projects = []"),
            "4:12: credential.0.projects: `projects` must be a list that is not empty",
        ),
        (
            token("permissions = [\"everything\"]"),
            "4:16: credential.0.permissions.0: no permission `everything`, use tunnels.resources.read-only,",
        ),
        (
            token("expires = \"soon\""),
            "4:11: credential.0.expires: not a time, use one with its offset such as 2027-01-31T12:00:00Z",
        ),
        // A time without offset is a different one everywhere.
        (
            token("updated-at = 2026-05-01T09:00:00"),
            "4:14: credential.0.updated-at: not a time",
        ),
        (
            token("resources = { tunnels = [] }"),
            "4:25: credential.0.resources.tunnels: `tunnels` must be an object",
        ),
        (
            token("resources = { tunnel = {} }"),
            "4:15: credential.0.resources.tunnel: unknown key `tunnel`, did you mean `tunnels`?",
        ),
        (
            token("resources = { tunnels = { scopes = { tunnels = { delete = true } } } }"),
            "4:25: credential.0.resources.tunnels: `delete` has no meaning in `scopes.tunnels`",
        ),
        (
            token("revoked = \"yes\""),
            "4:11: credential.0.revoked: invalid type",
        ),
        (
            token("name = \"\""),
            "4:8: credential.0.name: use 1 to 256 bytes of text without control characters",
        ),
        (
            token("email = \"a\\nb\""),
            "4:9: credential.0.email: use 1 to 256 bytes of text without control characters",
        ),
    ];
    for (text, expected) in cases {
        let problems = read(&text).unwrap_err();
        assert!(
            problems.starts_with(&format!("credentials.toml:{expected}")),
            "{text}\n{problems}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "[[credential]]\nid = \"a\"\nexpires = \"soon\"\n[[credential]]\nid = \"a\"\n";
    let problems = read(text).unwrap_err();
    assert_eq!(problems.lines().count(), 4, "{problems}");
}

#[test]
fn there_may_be_so_many_and_no_more() {
    let text = |count: usize| {
        let tables = (0..count).map(|n| {
            let hash = hex(&sha256(&n.to_le_bytes()));
            format!("[[credential]]\nid = \"c-{n}\"\ntoken-sha256 = [\"{hash}\"]\n")
        });
        tables.collect::<String>()
    };
    assert_eq!(read(&text(CREDENTIALS_MAX)).unwrap().len(), CREDENTIALS_MAX);
    let problems = read(&text(CREDENTIALS_MAX + 1)).unwrap_err();
    assert!(
        problems.contains("more than 10000 credentials"),
        "{problems}"
    );
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
