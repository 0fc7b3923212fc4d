//! Which places may pass.

use std::fmt;
use std::str::FromStr;

use adit_filters::{ConfigError, Location};
use serde::Deserialize;

/// How many places one list may name: the search is linear. There are some 250 countries.
pub const PLACES_MAX: usize = 1024;

/// The continents' codes.
const CONTINENTS: [&str; 7] = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"];

/// A place as rules name it: `DE`, `continent:EU`, `AS64500`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum Place {
    /// An autonomous system.
    Asn(u32),
    /// A continent.
    Continent(String),
    /// A country.
    Country(String),
}

/// What is not a place.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAPlace {
    /// Nothing of the kind.
    #[error(
        "`{0}` is not a place, write a country such as `DE`, `continent:EU`, or a network such as `AS64500`"
    )]
    Unknown(String),
    /// What looks like a country's code and is nobody's: no visitor would ever be there.
    #[error("`{code}` is no country's code, write `{right}`")]
    NotACountry {
        /// What was written.
        code: String,
        /// What was meant.
        right: &'static str,
    },
}

/// Codes of two letters that are often written and that no database has.
const MISTAKEN: [(&str, &str); 3] = [("EN", "GB"), ("EU", "continent:EU"), ("UK", "GB")];

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let wrong = || NotAPlace::Unknown(text.to_owned());
        let upper = text.trim().to_ascii_uppercase();
        if let Some(code) = upper.strip_prefix("CONTINENT:") {
            let known = CONTINENTS.contains(&code);
            return known
                .then(|| Self::Continent(code.to_owned()))
                .ok_or_else(wrong);
        }
        if let Some(number) = upper.strip_prefix("AS").filter(|rest| !rest.is_empty()) {
            return number.parse().map(Self::Asn).map_err(|_| wrong());
        }
        if let Some((_, right)) = MISTAKEN.iter().find(|(code, _)| *code == upper) {
            return Err(NotAPlace::NotACountry { code: upper, right });
        }
        let is_code = upper.len() == 2 && upper.bytes().all(|byte| byte.is_ascii_uppercase());
        match is_code {
            true => Ok(Self::Country(upper)),
            false => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Place {
    type Error = NotAPlace;
    fn try_from(text: String) -> Result<Self, NotAPlace> {
        text.parse()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asn(number) => write!(f, "AS{number}"),
            Self::Continent(code) => write!(f, "continent:{code}"),
            Self::Country(code) => f.write_str(code),
        }
    }
}

impl Place {
    fn holds(&self, location: &Location) -> bool {
        match self {
            Self::Asn(number) => location.asn == Some(*number),
            Self::Continent(code) => location.continent.as_ref() == Some(code),
            Self::Country(code) => location.country.as_ref() == Some(code),
        }
    }
}

/// Which places may pass, and which never.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    allow: Option<Vec<Place>>,
    deny: Vec<Place>,
}

impl Rules {
    /// Reads the lists.
    ///
    /// # Errors
    /// When they decide nothing, admit nobody by oversight, or are too long.
    pub fn new(allow: Option<Vec<Place>>, deny: Vec<Place>) -> Result<Self, ConfigError> {
        if allow.is_none() && deny.is_empty() {
            return Err(ConfigError {
                key: None,
                message: "`geoip` decides nothing: give `allow`, `deny` or both".to_owned(),
            });
        }
        if allow.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::at(
                "allow",
                "`allow` is empty: name a place, or leave it out to allow all",
            ));
        }
        for (key, list) in [
            ("allow", allow.as_deref().unwrap_or_default()),
            ("deny", &deny),
        ] {
            if list.len() > PLACES_MAX {
                let message = format!(
                    "`{key}` names {} places, more than {PLACES_MAX}",
                    list.len()
                );
                return Err(ConfigError::at(key, message));
            }
        }
        Ok(Self {
            allow: allow.map(once),
            deny: once(deny),
        })
    }

    /// Whether somebody there may pass. Who is nowhere known is not in a place that is allowed, and may be in one that
    /// is denied: a deny list alone lets the unknown pass, an allow list does not (edge-behaviour §5.1).
    #[must_use]
    pub fn admit(&self, location: &Location) -> bool {
        let within = |list: &[Place]| list.iter().any(|place| place.holds(location));
        !within(&self.deny) && self.allow.as_deref().is_none_or(within)
    }

    /// The countries allowed, where nothing but countries is: what a tunnel's list must share one with.
    #[must_use]
    pub fn countries(&self) -> Option<Vec<String>> {
        self.allow
            .as_ref()?
            .iter()
            .map(|place| match place {
                Place::Country(code) => Some(code.clone()),
                _ => None,
            })
            .collect()
    }
}

/// Each place once, in the order written.
fn once(list: Vec<Place>) -> Vec<Place> {
    let mut kept = Vec::with_capacity(list.len());
    for place in list {
        if !kept.contains(&place) {
            kept.push(place);
        }
    }
    kept
}
