//! The file of cases, as its author writes it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use adit_config::{Problem, Section, Span};
use adit_filters::Reason;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

/// Most times one case may be repeated.
const REPEAT_MAX: u32 = 10_000;

/// Everything in the file.
pub(super) struct Cases {
    pub(super) cases: Vec<Case>,
    /// The file, for whoever needs a part of it with positions.
    pub(super) section: Section,
}

impl Cases {
    pub(super) fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let section = Section::load(path)?;
        let File { case: cases, .. } = section.deserialize()?;
        if cases.is_empty() {
            return Err(vec![
                section.problem(None, "there is no case, write `[[case]]`"),
            ]);
        }
        Ok(Self { cases, section })
    }

    /// The filter's table in a case: its own, or that of the file.
    pub(super) fn config(&self, at: usize) -> Section {
        match self.cases.get(at).is_some_and(|case| case.config.is_some()) {
            true => self.section.below(&format!("case.{at}.config")),
            false => self.section.below("config"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "tables that are read elsewhere are known by name here"
)]
struct File {
    /// As `[plugin.NAME]` in the engine's configuration, without `component`.
    plugin: Option<IgnoredAny>,
    /// The filter's table for cases that have none of their own.
    config: Option<IgnoredAny>,
    #[serde(default)]
    case: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Case {
    pub(super) name: String,
    config: Option<IgnoredAny>,
    #[serde(default)]
    pub(super) request: Request,
    #[serde(default)]
    pub(super) tunnel: Tunnel,
    #[serde(default)]
    pub(super) response: Response,
    #[serde(default)]
    pub(super) stubs: Vec<Stub>,
    /// How often it is asked, with what the filter stores kept; the last time counts.
    #[serde(default)]
    pub(super) repeat: Repeat,
    pub(super) expect: Expect,
    pub(super) max_fuel: Option<u64>,
    pub(super) max_time: Option<Span>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct Repeat(pub(super) u32);

impl Default for Repeat {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<u32> for Repeat {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        match (1..=REPEAT_MAX).contains(&count) {
            true => Ok(Self(count)),
            false => Err(format!("use 1 to {REPEAT_MAX}")),
        }
    }
}

/// Fields by name.
pub(super) type Fields = BTreeMap<String, Texts>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Request {
    pub(super) method: String,
    /// With its query.
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) headers: Fields,
    /// Its pieces.
    pub(super) body: Texts,
    pub(super) from: IpAddr,
    pub(super) country: Option<String>,
    pub(super) continent: Option<String>,
    pub(super) region: Option<String>,
    pub(super) asn: Option<u32>,
    pub(super) identity: Option<Identity>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            path: "/".to_owned(),
            host: None,
            headers: Fields::new(),
            body: Texts::default(),
            // Of a net for examples (RFC 5737), so that nobody takes it for a visitor at home.
            from: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
            country: None,
            continent: None,
            region: None,
            asn: None,
            identity: None,
        }
    }
}

/// Who a filter before this one has found the visitor to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Identity {
    pub(super) subject: String,
    pub(super) name: Option<String>,
    pub(super) email: Option<String>,
    pub(super) token_id: Option<String>,
    #[serde(default)]
    pub(super) method: Method,
}

/// How that was proved.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Method {
    #[default]
    Token,
    Mtls,
    RstreamAuth,
    Plugin,
}

impl Method {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Mtls => "mtls",
            Self::RstreamAuth => "rstream-auth",
            Self::Plugin => "plugin",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tunnel {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) host: String,
    pub(super) project: String,
    pub(super) labels: BTreeMap<String, String>,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self {
            id: "t-1".to_owned(),
            name: None,
            host: "app.t.edge.example.com".to_owned(),
            project: adit_config::DEFAULT_PROJECT.to_owned(),
            labels: BTreeMap::new(),
        }
    }
}

/// What the service answers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Response {
    pub(super) status: Status,
    pub(super) headers: Fields,
    pub(super) body: Texts,
}

impl Default for Response {
    fn default() -> Self {
        Self {
            status: Status(http::StatusCode::OK),
            headers: Fields::new(),
            body: Texts::default(),
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "u16")]
pub(super) struct Status(pub(super) http::StatusCode);

impl TryFrom<u16> for Status {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        http::StatusCode::from_u16(number)
            .map(Self)
            .map_err(|_| format!("{number} is not a status, use 100 to 999"))
    }
}

/// What another service answers the filter.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stub {
    pub(super) url: String,
    /// Any, unless one is named.
    pub(super) method: Option<String>,
    #[serde(default = "ok")]
    pub(super) status: Status,
    #[serde(default)]
    pub(super) headers: Fields,
    #[serde(default)]
    pub(super) body: String,
    /// It does not answer at all.
    pub(super) fail: Option<Fail>,
}

fn ok() -> Status {
    Status(http::StatusCode::OK)
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fail {
    Unreachable,
    Timeout,
}

/// What should come of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Expect {
    pub(super) verdict: VerdictName,
    pub(super) reason: Option<Because>,
    pub(super) status: Option<Status>,
    pub(super) location: Option<String>,
    #[serde(default)]
    pub(super) headers: Fields,
    pub(super) body: Option<String>,
    pub(super) body_contains: Option<String>,
    /// What a misconfigured filter says.
    pub(super) says: Option<String>,
    /// What the service gets.
    pub(super) request: Option<Sent>,
    /// What the visitor gets.
    pub(super) response: Option<Got>,
    /// Who the visitor is, by the filter's own word.
    pub(super) identity: Option<String>,
    /// What its log must contain, each in some line.
    #[serde(default)]
    pub(super) log: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum VerdictName {
    Continue,
    Upgrade,
    Respond,
    Redirect,
    Refuse,
    Close,
    /// The filter does not take its table.
    Misconfigured,
}

impl VerdictName {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Upgrade => "upgrade",
            Self::Respond => "respond",
            Self::Redirect => "redirect",
            Self::Refuse => "refuse",
            Self::Close => "close",
            Self::Misconfigured => "misconfigured",
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Because(pub(super) Reason);

impl TryFrom<String> for Because {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut all = Reason::ALL.iter();
        let found = all.find(|reason| reason.as_str() == text);
        found.map(|reason| Self(*reason)).ok_or_else(|| {
            let known: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            format!("`{text}` is not a reason, use one of {}", known.join(", "))
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sent {
    /// With its query.
    pub(super) path: Option<String>,
    #[serde(default)]
    pub(super) headers: Fields,
    pub(super) body: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Got {
    pub(super) status: Option<Status>,
    #[serde(default)]
    pub(super) headers: Fields,
    pub(super) body: Option<String>,
    pub(super) body_contains: Option<String>,
}

/// One text, several, or none at all: a field's values, a body's pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Texts;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a text, a list of texts, or `false` for none")
            }

            fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }

            fn visit_bool<E: serde::de::Error>(self, there: bool) -> Result<Texts, E> {
                match there {
                    false => Ok(Texts::default()),
                    true => Err(E::invalid_value(serde::de::Unexpected::Bool(true), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = items.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
