//! Who signed in, and rules about who may enter.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// Longest text about a user that is kept, in bytes: more is cut off a name and an id that long is refused.
pub const USER_TEXT_BYTES_MAX: usize = 255;

/// Longest address of a picture that is kept, in bytes; a longer one is left out.
pub const IMAGE_BYTES_MAX: usize = 512;

/// A user who has proved who it is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct User {
    /// `account:` and the name of a local account, or `oidc:` and the subject at the provider. Two users never share
    /// one.
    pub id: String,
    /// Name, for people.
    pub name: Option<String>,
    /// Mail address that somebody has verified.
    pub email: Option<String>,
    /// Address of a picture.
    pub image: Option<String>,
    /// Groups that a rule names.
    #[serde(default)]
    pub groups: BTreeSet<String>,
    /// Claims and their values that a rule names.
    #[serde(default)]
    pub claims: BTreeMap<String, BTreeSet<String>>,
}

/// A rule about who may enter: whoever one of its lists names.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Written")]
pub struct Allow {
    users: BTreeSet<String>,
    emails: BTreeSet<String>,
    domains: BTreeSet<String>,
    groups: BTreeSet<String>,
    claims: BTreeMap<String, BTreeSet<String>>,
}

/// A rule as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    /// Ids of users.
    #[serde(default)]
    users: BTreeSet<String>,
    /// Mail addresses.
    #[serde(default)]
    emails: BTreeSet<String>,
    /// What stands behind the `@` of mail addresses.
    #[serde(default)]
    domains: BTreeSet<String>,
    /// Groups.
    #[serde(default)]
    groups: BTreeSet<String>,
    /// Values of claims, each of which will do.
    #[serde(default)]
    claims: BTreeMap<String, BTreeSet<String>>,
}

impl TryFrom<Written> for Allow {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written {
            users,
            emails,
            domains,
            groups,
            claims,
        } = written;
        let lower = |texts: BTreeSet<String>| -> BTreeSet<String> {
            texts.iter().map(|text| text.to_ascii_lowercase()).collect()
        };
        if let Some(email) = emails.iter().find(|email| !email.contains('@')) {
            return Err(format!(
                "`{email}` is not a mail address, write it like `ada@example.com`"
            ));
        }
        if let Some(domain) = domains.iter().find(|domain| domain.contains('@')) {
            return Err(format!(
                "`{domain}` is not a domain, write what stands behind the `@`, such as `example.com`"
            ));
        }
        if let Some(user) = users
            .iter()
            .find(|user| !(user.starts_with("account:") || user.starts_with("oidc:")))
        {
            return Err(format!(
                "`{user}` is not a user's id, write `account:{user}` for a local account or `oidc:{user}` for a subject at the provider"
            ));
        }
        let rule = Self {
            users,
            emails: lower(emails),
            domains: lower(domains),
            groups,
            claims,
        };
        if rule == Self::default() || rule.claims.values().any(BTreeSet::is_empty) {
            return Err(
                "the rule names nobody, give `emails`, `domains`, `groups`, `users` or `claims` with values"
                    .to_owned(),
            );
        }
        Ok(rule)
    }
}

impl Allow {
    /// Whether the rule names the user.
    #[must_use]
    pub fn names(&self, user: &User) -> bool {
        let email = user.email.as_ref().map(|email| email.to_ascii_lowercase());
        let domain = email.as_deref().and_then(|email| email.rsplit_once('@'));
        self.users.contains(&user.id)
            || email
                .as_ref()
                .is_some_and(|email| self.emails.contains(email))
            || domain.is_some_and(|(_, domain)| self.domains.contains(domain))
            || user.groups.iter().any(|group| self.groups.contains(group))
            || self.claims.iter().any(|(claim, values)| {
                user.claims
                    .get(claim)
                    .is_some_and(|has| !has.is_disjoint(values))
            })
    }
}

/// What rules ask about users: nothing else of what a provider says is kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interests {
    groups: BTreeSet<String>,
    pub(crate) claims: BTreeMap<String, BTreeSet<String>>,
}

impl Interests {
    /// Adds what a rule asks about.
    pub(crate) fn add(&mut self, rule: &Allow) {
        self.groups.extend(rule.groups.iter().cloned());
        for (claim, values) in &rule.claims {
            let known = self.claims.entry(claim.clone()).or_default();
            known.extend(values.iter().cloned());
        }
    }

    /// Those of the groups that a rule names.
    pub(crate) fn groups(&self, all: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        all.into_iter()
            .filter(|group| self.groups.contains(group))
            .collect()
    }
}

/// A text cut to what is kept of it, without control characters.
pub(crate) fn tidy(text: &str) -> Option<String> {
    let mut tidy: String = text.chars().filter(|char| !char.is_control()).collect();
    while tidy.len() > USER_TEXT_BYTES_MAX {
        tidy.pop();
    }
    let tidy = tidy.trim();
    (!tidy.is_empty()).then(|| tidy.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    fn rule(value: serde_json::Value) -> Result<Allow, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn ada() -> User {
        User {
            id: "account:ada".into(),
            email: Some("Ada@Example.com".into()),
            groups: ["ops".to_owned()].into(),
            claims: [("department".to_owned(), ["research".to_owned()].into())].into(),
            ..User::default()
        }
    }

    #[test]
    fn a_rule_names_whoever_is_on_one_of_its_lists() {
        for (written, named) in [
            (json!({ "users": ["account:ada"] }), true),
            (json!({ "users": ["oidc:ada"] }), false),
            (json!({ "emails": ["ADA@example.com"] }), true),
            (json!({ "emails": ["bob@example.com"] }), false),
            (json!({ "domains": ["example.com"] }), true),
            (json!({ "domains": ["ample.com"] }), false),
            (json!({ "domains": ["com"] }), false),
            (json!({ "groups": ["dev", "ops"] }), true),
            (json!({ "groups": ["dev"] }), false),
            (json!({ "claims": { "department": ["research"] } }), true),
            (json!({ "claims": { "department": ["sales"] } }), false),
            (json!({ "claims": { "team": ["research"] } }), false),
            (
                json!({ "groups": ["dev"], "domains": ["example.com"] }),
                true,
            ),
        ] {
            assert_eq!(
                rule(written.clone()).unwrap().names(&ada()),
                named,
                "{written}"
            );
        }
        let nobody = User::default();
        assert!(
            !rule(json!({ "domains": ["example.com"] }))
                .unwrap()
                .names(&nobody)
        );
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_refused() {
        for (written, why) in [
            (json!({}), "names nobody"),
            (json!({ "emails": [] }), "names nobody"),
            (json!({ "claims": { "department": [] } }), "names nobody"),
            (json!({ "emails": ["example.com"] }), "not a mail address"),
            (json!({ "domains": ["@example.com"] }), "not a domain"),
            (json!({ "users": ["ada"] }), "write `account:ada`"),
            (json!({ "mails": ["a@b"] }), "unknown field"),
        ] {
            let error = rule(written.clone()).unwrap_err();
            assert!(error.contains(why), "{written}: {error}");
        }
    }

    #[test]
    fn only_what_rules_ask_about_is_kept() {
        let mut interests = Interests::default();
        interests.add(&rule(json!({ "groups": ["ops"] })).unwrap());
        let groups = interests.groups(["ops".to_owned(), "staff".to_owned()]);
        assert_eq!(groups, ["ops".to_owned()].into());
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(tidy(" Ada\u{7}\n ").as_deref(), Some("Ada"));
        assert_eq!(tidy(" "), None);
        let long = tidy(&"é".repeat(USER_TEXT_BYTES_MAX)).unwrap();
        assert_eq!(long.len(), USER_TEXT_BYTES_MAX - 1);
    }
}
