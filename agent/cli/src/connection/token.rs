//! Tokens, as far as a client has to do with them.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_agent::Secret;
use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Longest token file read, in bytes; a token must fit into a frame.
const FILE_LEN_MAX: u64 = 64 * 1024;

/// Reads a token file: the token and nothing else but white space around it.
pub(super) fn read(path: &Path) -> anyhow::Result<Secret> {
    let shown = path.display();
    let meta =
        std::fs::metadata(path).with_context(|| format!("cannot read token file `{shown}`"))?;
    if meta.len() > FILE_LEN_MAX {
        bail!("token file `{shown}` is longer than {FILE_LEN_MAX} bytes");
    }
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read token file `{shown}`"))?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        bail!("token file `{shown}` must hold one token");
    }
    warn_if_shared(path);
    Ok(Secret::new(token))
}

/// Says so if others on this machine can read a file with a token in it.
pub(super) fn warn_if_shared(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let shared = std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o077 != 0);
    if shared {
        let path = path.display();
        let _ = writeln!(
            std::io::stderr(),
            "warning: others on this machine can read `{path}`, which holds a token: chmod 600 it"
        );
    }
}

/// Refuses a token the engine would refuse anyway, without bothering it: an empty one, and a JWT
/// whose time is over.
pub(super) fn check(token: &Secret, now: SystemTime) -> anyhow::Result<()> {
    if token.is_blank() {
        bail!("the token is empty");
    }
    let now = now
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    if expiry(token.expose()).is_some_and(|expiry| expiry <= now) {
        bail!("the token has expired, get a new one");
    }
    Ok(())
}

/// The `exp` claim, in seconds since 1970, of what looks like a JWT.
fn expiry(token: &str) -> Option<f64> {
    #[derive(Deserialize)]
    struct Claims {
        exp: Option<f64>,
    }
    let mut parts = token.split('.');
    let (_, claims, _, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    serde_json::from_slice::<Claims>(&claims).ok()?.exp
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_jwt_has_an_expiry() {
        let claims = |text: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(text));
        for (token, expected) in [
            ("opaque".to_owned(), None),
            ("a.b".to_owned(), None),
            ("a.!.c".to_owned(), None),
            (claims("not json"), None),
            (claims("{}"), None),
            (claims("{\"exp\":\"soon\"}"), None),
            (claims("{\"exp\":12}"), Some(12.0)),
            (claims("{\"exp\":12.5}"), Some(12.5)),
        ] {
            assert_eq!(expiry(&token), expected, "{token}");
        }
    }
}
