//! Whose a visit is: what filters that count visits count together.

use std::borrow::Cow;
use std::net::IpAddr;

use adit_filters::Identity;

use crate::identity::token::LOCAL_USER;

/// What those counted together have in common. Addresses of IPv6 are told apart by their /64: whoever has one has all
/// of it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Whose<'a> {
    /// A principal of a project: another project's is another.
    Principal {
        project: Cow<'a, str>,
        method: &'static str,
        subject: Cow<'a, str>,
        /// Tells those apart who have no name.
        token: Option<Cow<'a, str>>,
    },
    Tunnel(Cow<'a, str>),
    V4([u8; 4]),
    V6([u8; 8]),
}

impl<'a> Whose<'a> {
    /// The principal, whatever token or certificate of its own it shows.
    pub(crate) fn principal(project: &'a str, identity: &'a Identity) -> Self {
        let is_nameless = [LOCAL_USER, ""].contains(&identity.subject.as_str());
        let token = identity.token_id.as_deref().filter(|_| is_nameless);
        Self::Principal {
            project: project.into(),
            method: identity.method,
            subject: identity.subject.as_str().into(),
            token: token.map(Cow::Borrowed),
        }
    }

    pub(crate) fn tunnel(id: &'a str) -> Self {
        Self::Tunnel(id.into())
    }

    /// The same, for a table that keeps it.
    pub(crate) fn into_owned(self) -> Whose<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Principal {
                project,
                method,
                subject,
                token,
            } => Whose::Principal {
                project: own(project),
                method,
                subject: own(subject),
                token: token.map(own),
            },
            Self::Tunnel(id) => Whose::Tunnel(own(id)),
            Self::V4(address) => Whose::V4(address),
            Self::V6(network) => Whose::V6(network),
        }
    }
}

impl From<IpAddr> for Whose<'_> {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn address(text: &str) -> Whose<'static> {
        Whose::from(text.parse::<IpAddr>().unwrap())
    }

    fn identity(method: &'static str, subject: &str, token: Option<&str>) -> Identity {
        Identity {
            method,
            subject: subject.to_owned(),
            token_id: token.map(str::to_owned),
            ..Identity::default()
        }
    }

    #[test]
    fn whoever_has_one_address_of_a_64_has_all_of_it() {
        assert_eq!(address("2001:db8:0:1::1"), address("2001:db8:0:1:ffff::2"));
        assert_ne!(address("2001:db8:0:1::1"), address("2001:db8:0:2::1"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
    }

    #[test]
    fn a_principal_is_one_whatever_it_shows_and_another_in_another_project() {
        // project, method, subject, token: is it counted with the first?
        let cases = [
            (("p", "token", "a", Some("1")), true),
            (("p", "token", "a", Some("2")), true),
            (("p", "token", "a", None), true),
            (("q", "token", "a", Some("1")), false),
            (("p", "mtls", "a", Some("1")), false),
            (("p", "token", "b", Some("1")), false),
        ];
        let first = identity("token", "a", Some("1"));
        let first = Whose::principal("p", &first);
        for ((project, method, subject, token), together) in cases {
            let other = identity(method, subject, token);
            let other = Whose::principal(project, &other);
            assert_eq!(first == other, together, "{other:?}");
            assert_ne!(other, Whose::tunnel("a"));
        }
    }

    #[test]
    fn tokens_of_nobody_in_particular_are_told_apart_by_their_ids() {
        let [one, other, again] = ["1", "2", "1"].map(|id| identity("token", LOCAL_USER, Some(id)));
        let [one, other, again] = [&one, &other, &again].map(|it| Whose::principal("p", it));
        assert_ne!(one, other);
        assert_eq!(one, again.into_owned());
    }
}
