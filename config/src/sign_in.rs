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
    /// Its issuer, an `https` URL without query.
    pub issuer: String,
    /// This engine's id there.
    pub client_id: String,
    /// This engine's secret there; none for a public client.
    pub client_secret: Option<Secret<String>>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
}

impl Oidc {
    fn read(mut table: Reader<'_>) -> Option<Self> {
        let issuer: Option<String> = table.required(
            "issuer",
            "write the provider's issuer, such as `https://login.example.com`",
        );
        let client_id = table.required("client-id", "write this engine's id at the provider");
        let client_secret = table.value("client-secret");
        let scopes = table.or("scopes", vec!["profile".to_owned(), "email".to_owned()]);
        if let Some(issuer) = &issuer
            && !(issuer.starts_with("https://") || issuer.starts_with("http://"))
        {
            table.wrong(
                "issuer",
                format!("`{issuer}` is not a URL, write `https://…`"),
            );
        }
        table.finish();
        Some(Self {
            issuer: issuer?,
            client_id: client_id?,
            client_secret,
            scopes,
        })
    }
}
