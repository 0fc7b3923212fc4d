//! How visitors with a browser prove themselves: `[challenge]` and `[login]`.

use std::path::PathBuf;
use std::time::Duration;

use crate::reader::Reader;
use crate::secret::Secret;
use crate::section::Section;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[challenge]`: the proof of work that browsers are asked for.
#[derive(Clone, Debug)]
pub struct Challenge {
    /// Whether tunnels may ask for it.
    pub enabled: bool,
    /// How long a proof counts.
    pub lifetime: Duration,
    /// Zero bits a proof must have: each doubles the work.
    pub bits: u8,
}

impl Challenge {
    pub(crate) fn read(mut table: Reader<'_>) -> Self {
        let challenge = Self {
            enabled: table.or("enabled", true),
            lifetime: table.duration("lifetime", MINUTE * 60, MINUTE..=DAY),
            bits: table.count("bits", 13, 4..=24),
        };
        table.finish();
        challenge
    }
}

/// `[login]`: who may sign in, and how long that lasts.
#[derive(Clone, Debug)]
pub struct Login {
    /// How long a session lasts.
    pub lifetime: Duration,
    /// Who may sign in; none lets everybody who can.
    pub allow: Option<Section>,
    /// File of local accounts.
    pub accounts: Option<PathBuf>,
    /// An OpenID Connect provider.
    pub oidc: Option<Oidc>,
}

impl Login {
    pub(crate) fn read(mut table: Reader<'_>) -> Self {
        let oidc = table
            .field("oidc")
            .and_then(|field| Oidc::read(field.table()?));
        let login = Self {
            lifetime: table.duration("lifetime", DAY / 2, MINUTE..=DAY * 30),
            allow: table.field("allow").and_then(|field| field.section()),
            accounts: table.value("accounts"),
            oidc,
        };
        table.finish();
        login
    }

    /// Whether anybody could sign in.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.accounts.is_some() || self.oidc.is_some()
    }
}

/// `[login.oidc]`: an OpenID Connect provider that vouches for users.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// Its issuer, an `https` URL without query; `http` on loopback alone.
    pub issuer: String,
    /// What its button is called; its host without it.
    pub name: Option<String>,
    /// This engine's id there.
    pub client_id: String,
    /// This engine's secret there; none for a public client.
    pub client_secret: Option<Secret<String>>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that lists a user's groups.
    pub groups_claim: String,
    /// Whether mail addresses count that it does not say it has verified.
    pub trust_email: bool,
}

impl Oidc {
    fn read(mut table: Reader<'_>) -> Option<Self> {
        let issuer: Option<String> = table.required(
            "issuer",
            "write the provider's issuer, such as `https://login.example.com`",
        );
        let client_id = table.required("client-id", "write this engine's id at the provider");
        let oidc = (
            table.value("name"),
            table.value("client-secret"),
            table.or("scopes", vec!["profile".to_owned(), "email".to_owned()]),
            table.or("groups-claim", "groups".to_owned()),
            table.or("trust-email", false),
        );
        if let Some(issuer) = &issuer
            && !is_issuer(issuer)
        {
            table.wrong(
                "issuer",
                format!("`{issuer}` is not an issuer, write a URL such as `https://login.example.com` without query; `http://` is for loopback alone"),
            );
        }
        table.finish();
        let (name, client_secret, scopes, groups_claim, trust_email) = oidc;
        Some(Self {
            issuer: issuer?,
            name,
            client_id: client_id?,
            client_secret,
            scopes,
            groups_claim,
            trust_email,
        })
    }
}

/// Whether a text can be an issuer ([OpenID Connect Core §2](https://openid.net/specs/openid-connect-core-1_0.html#IDToken)).
fn is_issuer(text: &str) -> bool {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    if !printable || text.contains(['?', '#', '@', '\\']) {
        return false;
    }
    let authority = |rest: &str| rest.split('/').next().unwrap_or_default().to_owned();
    match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => !authority(rest).is_empty(),
        (None, Some(rest)) => is_loopback(&authority(rest)),
        (None, None) => false,
    }
}

/// Whether an authority, a port perhaps included, is this machine's own.
fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_https_but_on_this_machine() {
        for text in [
            "https://login.example.com",
            "https://login.example.com:8443/realms/one/",
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:3000/x",
        ] {
            assert!(is_issuer(text), "{text}");
        }
        for text in [
            "http://login.example.com",
            "http://localhost.example.com",
            "http://10.0.0.1",
            "https://",
            "https:///x",
            "https://a@b",
            "https://login.example.com/?x",
            "https://login.example.com/#x",
            "login.example.com",
            "ftp://login.example.com",
            "",
        ] {
            assert!(!is_issuer(text), "{text}");
        }
    }
}
