//! `token`: only requests with a token of this engine that allows them.
//!
//! The token comes as `Authorization: Bearer`, if that bearer is one of ours, else as the one `rstream.token` query
//! parameter. It is taken out of the request; a bearer that belongs to the service stays.

use std::sync::Arc;

use adit_config::{Problem, Section};
use adit_filters::env::Clock;
use adit_filters::{
    Env, Fact, Factory, FilterError, Hooks, Identity, OnRejudge, OnRequest, Reason, RejudgeCx,
    RequestCx, Stage, Stay, TunnelInfo, Verdict,
};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use super::admitted::{Admitted, stays};
use super::authority::Authority;
use super::boundary::Place;
use super::claims::TokenKind;
use super::error::TokenError;
use super::principal::Principal;
use super::query::{self, QueryToken};
use crate::identity::Missing;

const NAME: &str = "token";

/// The fact's name.
const PROOF: &str = "token-proof";

/// What a token may do is in the token; this is what happens without one.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    missing: Missing,
}

/// Makes `token` filters that share one authority.
#[derive(Debug)]
pub struct TokenFactory {
    authority: Arc<Authority>,
}

impl TokenFactory {
    /// Filters judge tokens by this authority.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        Self { authority }
    }
}

impl Factory for TokenFactory {
    fn name(&self) -> &str {
        NAME
    }

    fn stage(&self) -> Stage {
        Stage::Identity
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let Config { missing } = section.deserialize()?;
        let filter = TokenFilter::new(self.authority.clone(), env);
        Ok(TokenFilter { missing, ..filter }.hooks())
    }
}

/// The filter.
pub struct TokenFilter {
    authority: Arc<Authority>,
    clock: Arc<dyn Clock>,
    missing: Missing,
}

/// Which proof the filter judged, for the log. It is there even when the filter refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TokenProof {
    /// Where the token was.
    pub source: TokenSource,
    /// Its kind, if it verified and says.
    pub kind: Option<TokenKind>,
}

impl Fact for TokenProof {
    const NAME: &'static str = PROOF;
}

/// Where a token was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TokenSource {
    /// In `Authorization`.
    Authorization,
    /// In the query.
    Query,
    /// Nowhere.
    Unknown,
}

impl TokenSource {
    /// As the log writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Query => "query",
            Self::Unknown => "unknown",
        }
    }
}

/// What the request's fields say about a token.
enum Bearer {
    Absent,
    /// Something else, which belongs to the service.
    Foreign,
    Ours(Result<Arc<Principal>, TokenError>),
    /// One of ours among several, or too many to look: which one counts, nobody can say.
    Ambiguous,
}

impl TokenFilter {
    /// A filter that judges tokens by this authority.
    #[must_use]
    pub fn new(authority: Arc<Authority>, env: &Env) -> Self {
        Self {
            authority,
            clock: env.clock.clone(),
            missing: Missing::Refuse,
        }
    }

    /// The same, but requests without a token are left to a later filter.
    #[must_use]
    pub fn or_next(self) -> Self {
        Self {
            missing: Missing::Next,
            ..self
        }
    }

    /// Takes a token of the request that allows it, for filters that ask less of its bearer. Any other token is left
    /// alone, as if it were not there. Who its bearer is counts for nobody else: a filter that asks visitors to sign in
    /// still does.
    ///
    /// # Errors
    /// When a token was judged before.
    pub fn welcome(&self, cx: &mut RequestCx<'_>) -> Result<bool, FilterError> {
        let (source, Ok(principal)) = self.proof(cx) else {
            return Ok(false);
        };
        let kind = principal.kind;
        let admitted = Admitted::new(principal, cx);
        if !admitted.may_enter(cx.exchange.connection().tunnel()) {
            return Ok(false);
        }
        establish(cx, TokenProof { source, kind })?;
        strip(cx, source);
        Ok(cx.exchange.establish(admitted).is_ok())
    }

    /// Whether the token that an open exchange was let in by still lets it in; none if it was let in without one.
    pub(crate) fn still_welcome(&self, cx: &mut RejudgeCx<'_>) -> Option<bool> {
        let proof = *cx.exchange.fact::<TokenProof>()?;
        Some(stays(cx, &self.authority, proof))
    }

    /// Who is behind the request's token, if it carries one, without taking it: for filters before this one that tell
    /// visitors who they are.
    ///
    /// # Errors
    /// Why the token would be refused.
    pub(crate) fn look(&self, cx: &RequestCx<'_>) -> Option<Result<Arc<Principal>, Reason>> {
        let principal = match self.proof(cx) {
            (_, Err(Reason::MissingToken)) => return None,
            (_, Err(reason)) => return Some(Err(reason)),
            (_, Ok(principal)) => principal,
        };
        let admitted = Admitted::new(principal, cx);
        Some(
            match admitted.may_enter(cx.exchange.connection().tunnel()) {
                true => Ok(Arc::clone(admitted.principal())),
                false => Err(Reason::InsufficientScope),
            },
        )
    }

    /// Whether a request carries a token: one of ours in its fields, or anything at all in the query.
    #[must_use]
    pub fn finds_token(&self, cx: &RequestCx<'_>) -> bool {
        matches!(
            self.bearer(&cx.head.headers),
            Bearer::Ours(_) | Bearer::Ambiguous
        ) || query::find(cx.head.uri.query()) != QueryToken::Absent
    }

    /// The phases it takes part in.
    #[must_use]
    pub fn hooks(self) -> Hooks {
        let missing = self.missing;
        let filter = Arc::new(self);
        let hooks = Hooks::new()
            .at(Stage::Identity)
            .request(Arc::clone(&filter))
            .rejudge(filter);
        match missing {
            Missing::Refuse => hooks.gives::<Identity>(),
            Missing::Next => hooks.defers::<Identity>(),
        }
    }

    fn bearer(&self, headers: &HeaderMap) -> Bearer {
        let now = self.clock.now();
        let judge = |field: &HeaderValue| {
            let verified = self.authority.verify(bearer_token(field)?, now);
            verified
                .as_ref()
                .map_or_else(TokenError::is_ours, |_| true)
                .then_some(verified)
        };
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        match (fields.next(), fields.next(), fields.next()) {
            (None, _, _) => Bearer::Absent,
            (Some(only), None, _) => judge(only).map_or(Bearer::Foreign, Bearer::Ours),
            (Some(one), Some(other), None) => {
                if judge(one).or_else(|| judge(other)).is_some() {
                    Bearer::Ambiguous
                } else {
                    Bearer::Foreign
                }
            }
            // The field stands once (RFC 9110 §11.6.2). To judge a head full of them would cost too much.
            (Some(_), Some(_), Some(_)) => Bearer::Ambiguous,
        }
    }

    fn proof(&self, cx: &RequestCx<'_>) -> (TokenSource, Result<Arc<Principal>, Reason>) {
        let foreign = match self.bearer(&cx.head.headers) {
            Bearer::Ours(verified) => {
                return (
                    TokenSource::Authorization,
                    verified.map_err(|error| reason(&error)),
                );
            }
            Bearer::Ambiguous => {
                return (
                    TokenSource::Authorization,
                    Err(Reason::AmbiguousCredentials),
                );
            }
            Bearer::Foreign => true,
            Bearer::Absent => false,
        };
        match query::find(cx.head.uri.query()) {
            QueryToken::One(token) => {
                let verified = self.authority.verify(&token, self.clock.now());
                (TokenSource::Query, verified.map_err(|error| reason(&error)))
            }
            QueryToken::Unusable => (TokenSource::Query, Err(Reason::InvalidToken)),
            QueryToken::Absent if foreign => {
                (TokenSource::Authorization, Err(Reason::InvalidToken))
            }
            QueryToken::Absent => (TokenSource::Unknown, Err(Reason::MissingToken)),
        }
    }
}

impl OnRequest for TokenFilter {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if cx.exchange.fact::<TokenProof>().is_some() {
            // The project and the tunnel may both ask for a token: the first of us has taken it out of the request,
            // after judging it by all that this one would.
            return Ok(Verdict::Continue);
        }
        if let Some(known) = cx.exchange.fact::<Identity>()
            && (self.missing == Missing::Next || known.certificate_sha256.is_some())
        {
            // One method is enough here, and another has proved who this is. Whoever was known by a certificate was
            // refused any token beside it: to ask for one would be to ask for what cannot be.
            return Ok(Verdict::Continue);
        }
        let (source, verified) = self.proof(cx);
        if matches!(verified, Err(Reason::MissingToken)) && self.missing == Missing::Next {
            return Ok(Verdict::Continue);
        }
        let kind = verified.as_ref().ok().and_then(|principal| principal.kind);
        establish(cx, TokenProof { source, kind })?;
        let principal = match verified {
            Ok(principal) => principal,
            Err(reason) => return Ok(Verdict::Refuse(reason)),
        };
        let admitted = Admitted::new(principal, cx);
        if !admitted.may_enter(cx.exchange.connection().tunnel()) {
            return Ok(Verdict::Refuse(Reason::InsufficientScope));
        }
        Ok(take(cx, source, admitted))
    }
}

impl OnRejudge for TokenFilter {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        if cx.facts.get::<TokenProof>().is_some() {
            return Ok(Stay::Yes);
        }
        if let Some(known) = cx.facts.get::<Identity>()
            && (self.missing == Missing::Next || known.certificate_sha256.is_some())
        {
            return Ok(Stay::Yes);
        }
        Ok(match (self.still_welcome(cx), self.missing) {
            (Some(true), _) | (None, Missing::Next) => Stay::Yes,
            (Some(false), _) => Stay::No(Reason::InvalidToken),
            (None, Missing::Refuse) => Stay::No(Reason::MissingToken),
        })
    }
}

fn establish(cx: &mut RequestCx<'_>, proof: TokenProof) -> Result<(), FilterError> {
    cx.exchange
        .establish(proof)
        .map_err(|_| FilterError::Trapped {
            reason: "a token was judged twice",
        })
}

/// Says who the bearer is and takes the token out of the request.
fn take(cx: &mut RequestCx<'_>, source: TokenSource, admitted: Admitted) -> Verdict {
    let principal = admitted.principal();
    let identity = Identity {
        subject: principal.user_id.clone(),
        method: NAME,
        name: principal.name.clone(),
        email: principal.email.clone(),
        // A stored token has an id even if it does not say so itself.
        token_id: principal
            .token_id
            .as_ref()
            .or(principal.credential_id.as_ref())
            .cloned(),
        ..Identity::default()
    };
    let established = cx
        .exchange
        .establish(identity)
        .and_then(|()| cx.exchange.establish(admitted));
    if established.is_err() {
        // Somebody else has proved who this is: two proofs on one request contradict each other.
        return Verdict::Refuse(Reason::AmbiguousCredentials);
    }
    strip(cx, source);
    Verdict::Continue
}

/// Takes the token out of the request: it is not the service's.
fn strip(cx: &mut RequestCx<'_>, source: TokenSource) {
    if source == TokenSource::Authorization {
        cx.head.headers.remove(AUTHORIZATION);
    }
    if let Some(uri) = query::without_query_token(&cx.head.uri) {
        cx.head.uri = uri;
    }
}

pub(crate) fn connects(principal: &Principal, tunnel: &TunnelInfo, path: Option<&str>) -> bool {
    let place = Place {
        project: &tunnel.project,
        workspace: None,
    };
    principal.may_connect(place, &tunnel.record, path)
}

fn reason(error: &TokenError) -> Reason {
    match error {
        TokenError::Expired => Reason::ExpiredToken,
        _ => Reason::InvalidToken,
    }
}

/// The token of `Bearer <token>` ([RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1)).
fn bearer_token(field: &HeaderValue) -> Option<&str> {
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::net::SocketAddr;
    use std::time::Duration;

    use adit_config::Secret;
    use adit_filters::env::fake::Fake;
    use adit_filters::{
        Chain, Connected, ConnectionInfo, Decision, Exchange, Placed, Transport, Upgrade,
    };
    use serde_json::{Value, json};

    use super::super::claims::{Claims, Resources};
    use super::*;
    use crate::identity::credentials::{Credentials, sha256};

    /// The fake clock's beginning, in Unix seconds.
    const NOW: f64 = 1_800_000_000.0;

    struct Bench {
        fake: Fake,
        authority: Arc<Authority>,
        chain: Chain,
    }

    impl Bench {
        fn new() -> Self {
            let fake = Fake::default();
            let secret = Secret::new("demo-secret-32-bytes-minimum-0001".to_owned());
            let authority = Arc::new(Authority::new(&secret).unwrap());
            let filter = || TokenFilter::new(authority.clone(), &fake.env()).hooks();
            // The project and the tunnel may both ask for a token.
            let chain = Chain::compile(vec![
                Placed::new("project/token", filter()),
                Placed::new("tunnel/token", filter()),
            ]);
            Self {
                authority,
                chain: chain.unwrap(),
                fake,
            }
        }

        fn token(&self, claims: Claims) -> String {
            self.authority.mint(&claims).unwrap()
        }

        /// A token for one path.
        fn tok(&self, path: &str) -> String {
            let scopes = json!({ "tunnels": { "connect": { "params": { "path": path } } } });
            let tunnels = json!({ "projects": ["default"], "scopes": scopes });
            self.token(Claims {
                sub: Some("u-1".into()),
                permissions: Some(vec!["tunnels.streams.create-delete".into()]),
                resources: Some(Resources { tunnels }),
                ..Claims::default()
            })
        }

        async fn exchange(&self) -> Exchange {
            let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
            let info = ConnectionInfo {
                id: 1,
                peer,
                transport: Transport::Tls,
                hello: None,
                tls: None,
            };
            let tunnel = TunnelInfo {
                id: "t".into(),
                project: "default".into(),
                ..TunnelInfo::default()
            };
            let Connected::Admitted(connection) =
                self.chain.connect(Arc::new(info), Arc::new(tunnel)).await
            else {
                panic!()
            };
            self.chain.exchange(connection)
        }

        async fn ask(&self, head: &mut http::request::Parts, asked: Option<Upgrade>) -> String {
            let mut exchange = self.exchange().await;
            let decision = self.chain.request(head, &mut exchange, asked).await;
            let proof = exchange.fact::<TokenProof>().unwrap();
            match decision {
                Decision::Pass { .. } => {
                    let identity = exchange.fact::<Identity>().unwrap();
                    assert_eq!(identity.method, "token");
                    format!("pass {} by {}", identity.subject, proof.source.as_str())
                }
                Decision::Refuse(refusal) => {
                    format!("{} from {}", refusal.reason, proof.source.as_str())
                }
                other => panic!("{other:?}"),
            }
        }

        async fn get(&self, uri: &str, bearer: Option<&str>) -> (String, String) {
            let mut request = http::Request::get(format!("https://a.example{uri}"));
            if let Some(bearer) = bearer {
                request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
            }
            let mut head = request.body(()).unwrap().into_parts().0;
            let result = self.ask(&mut head, None).await;
            let left = head
                .headers
                .get(AUTHORIZATION)
                .map_or("", |field| field.to_str().unwrap());
            (
                result,
                format!("{} {left}", head.uri.path_and_query().unwrap()),
            )
        }
    }

    #[tokio::test]
    async fn requests_pass_with_a_token_that_allows_them_and_no_others() {
        let bench = Bench::new();
        let ping = bench.tok("/ping");
        let ws = bench.tok("/ws");
        let free = bench.token(Claims {
            sub: Some("u-2".into()),
            ..Claims::default()
        });
        let cannot = bench.token(Claims {
            permissions: Some(vec!["tunnels.resources.read-only".into()]),
            resources: Some(Resources {
                tunnels: json!({ "scopes": { "tunnels": { "connect": true } } }),
            }),
            ..Claims::default()
        });
        let project =
            |id: &str| json!({ "projects": [id], "scopes": { "tunnels": { "connect": true } } });
        let boundary = |tunnels: Value| {
            bench.token(Claims {
                resources: Some(Resources { tunnels }),
                sub: Some("u-1".into()),
                ..Claims::default()
            })
        };
        let disjoint = boundary(json!({ "AND": [project("default"), project("other")] }));
        let elsewhere = boundary(project("other"));
        let here = boundary(project("default"));
        let a = bench.tok("/a");
        let foreign = bench.token(Claims::default()).replace('.', ".x");
        let query = |token: &str| format!("/ping?a=1&rstream.token={token}");
        // edge-behaviour §14.2
        let cases: &[(&str, String, Option<&str>, &str)] = &[
            ("T1", "/ping".into(), None, "missing-token from unknown"),
            (
                "T2",
                "/ping".into(),
                Some(&ping),
                "pass u-1 by authorization",
            ),
            (
                "T2 with a query",
                "/ping?x=/private".into(),
                Some(&ping),
                "pass u-1 by authorization",
            ),
            (
                "T3",
                "/private".into(),
                Some(&ping),
                "insufficient-scope from authorization",
            ),
            (
                "T4",
                "/ping".into(),
                Some(&cannot),
                "insufficient-scope from authorization",
            ),
            ("T5", query(&ping), None, "pass u-1 by query"),
            ("T6", query(&ping), Some("app-own"), "pass u-1 by query"),
            (
                "T6 with a foreign JWT",
                query(&ping),
                Some(&foreign),
                "pass u-1 by query",
            ),
            (
                "T7",
                "/ping".into(),
                Some("app-own"),
                "invalid-token from authorization",
            ),
            (
                "T8",
                format!("{}&rstream.token={ping}", query(&ping)),
                None,
                "invalid-token from query",
            ),
            ("T8 empty", query(""), None, "invalid-token from query"),
            (
                "T10",
                query(&ping),
                Some(&free),
                "pass u-2 by authorization",
            ),
            (
                "T10 the header decides",
                query(&free),
                Some(&a),
                "insufficient-scope from authorization",
            ),
            (
                "T11",
                "/".into(),
                Some(&disjoint),
                "insufficient-scope from authorization",
            ),
            (
                "T11 twin",
                "/".into(),
                Some(&here),
                "pass u-1 by authorization",
            ),
            (
                "another project",
                "/".into(),
                Some(&elsewhere),
                "insufficient-scope from authorization",
            ),
            (
                "T19",
                format!("/ws?rstream.token={ws}"),
                None,
                "pass u-1 by query",
            ),
            (
                "T19 elsewhere",
                format!("/other?rstream.token={ws}"),
                None,
                "insufficient-scope from query",
            ),
            ("T20", "/a".into(), Some(&a), "pass u-1 by authorization"),
            (
                "T20 encoded slash",
                "/a%2f..%2fb".into(),
                Some(&a),
                "insufficient-scope from authorization",
            ),
            (
                "T20 dots",
                "/a/../b".into(),
                Some(&a),
                "insufficient-scope from authorization",
            ),
            (
                "T20 NUL",
                "/a%00".into(),
                Some(&a),
                "insufficient-scope from authorization",
            ),
            (
                "a bad query token",
                query("nonsense"),
                None,
                "invalid-token from query",
            ),
        ];
        for (case, uri, bearer, expected) in cases {
            assert_eq!(bench.get(uri, *bearer).await.0, *expected, "{case}");
        }
    }

    #[tokio::test]
    async fn the_proof_is_taken_out_and_nothing_else_is_touched() {
        let bench = Bench::new();
        let token = bench.tok("/x");
        let cases = [
            (
                format!("/x?a=%20&rstream.token={token}"),
                Some("app-own"),
                "/x?a=%20 Bearer app-own",
            ),
            (format!("/x?rstream.token={token}"), None, "/x "),
            ("/x?b".to_owned(), Some(token.as_str()), "/x?b "),
            // The header decided; the other token is still nobody's business.
            (
                format!("/x?rstream.token={token}&c"),
                Some(token.as_str()),
                "/x?c ",
            ),
        ];
        for (uri, bearer, left) in cases {
            assert_eq!(bench.get(&uri, bearer).await.1, left, "{uri}");
        }
    }

    #[tokio::test]
    async fn the_scheme_is_read_in_any_case_and_other_schemes_are_the_services_own() {
        let bench = Bench::new();
        let token = bench.tok("/");
        for (field, expected) in [
            (format!("bearer {token}"), "pass u-1 by authorization"),
            (format!("BEARER  {token} "), "pass u-1 by authorization"),
            (format!("Basic {token}"), "invalid-token from authorization"),
            (token.clone(), "invalid-token from authorization"),
        ] {
            let request = http::Request::get("https://a.example/").header(AUTHORIZATION, &field);
            let mut head = request.body(()).unwrap().into_parts().0;
            assert_eq!(bench.ask(&mut head, None).await, expected, "{field}");
        }
    }

    #[tokio::test]
    async fn one_of_ours_among_several_fields_is_ambiguous() {
        let bench = Bench::new();
        let token = bench.tok("/");
        for (fields, expected) in [
            (
                [format!("Bearer {token}"), "Basic x".into()],
                "ambiguous-credentials from authorization",
            ),
            (
                ["Basic x".into(), format!("Bearer {token}")],
                "ambiguous-credentials from authorization",
            ),
            (
                ["Basic x".into(), "Bearer y".into()],
                "invalid-token from authorization",
            ),
        ] {
            let mut request = http::Request::get("https://a.example/");
            for field in &fields {
                request = request.header(AUTHORIZATION, field);
            }
            let mut head = request.body(()).unwrap().into_parts().0;
            assert_eq!(bench.ask(&mut head, None).await, expected, "{fields:?}");
        }
    }

    #[tokio::test]
    async fn more_fields_than_can_be_judged_are_ambiguous_whatever_they_hold() {
        let bench = Bench::new();
        let mut request = http::Request::get("https://a.example/");
        for _ in 0..3 {
            request = request.header(AUTHORIZATION, "Basic x");
        }
        let mut head = request.body(()).unwrap().into_parts().0;
        assert_eq!(
            bench.ask(&mut head, None).await,
            "ambiguous-credentials from authorization"
        );
    }

    // edge-behaviour §14.2 T9: time is looked at on each request, also on a connection that was admitted before.
    #[tokio::test]
    async fn a_token_is_refused_from_its_end_on() {
        let bench = Bench::new();
        let token = bench.token(Claims {
            sub: Some("u-1".into()),
            exp: Some(NOW + 10.0),
            ..Claims::default()
        });
        assert_eq!(
            bench.get("/", Some(&token)).await.0,
            "pass u-1 by authorization"
        );
        bench.fake.clock.advance(Duration::from_secs(10));
        assert_eq!(
            bench.get("/", Some(&token)).await.0,
            "expired-token from authorization"
        );
        let early = bench.token(Claims {
            nbf: Some(NOW + 1000.0),
            ..Claims::default()
        });
        assert_eq!(
            bench.get("/", Some(&early)).await.0,
            "invalid-token from authorization"
        );
    }

    // edge-behaviour §7.2 "Stream lifetime"
    #[tokio::test]
    async fn who_was_let_in_stays_while_its_credential_lets_it() {
        let bench = Bench::new();
        let token = bench.token(Claims {
            exp: Some(NOW + 10.0),
            ..Claims::default()
        });
        let request = http::Request::get("https://a.example/live?x")
            .header(AUTHORIZATION, format!("Bearer {token}"));
        let mut head = request.body(()).unwrap().into_parts().0;
        let mut exchange = bench.exchange().await;
        let decision = bench.chain.request(&mut head, &mut exchange, None).await;
        assert!(matches!(decision, Decision::Pass { .. }), "{decision:?}");
        // Plugins may know of it, and of no secret.
        let known = exchange.facts().json("admitted").unwrap();
        assert_eq!(known["expires"], NOW + 10.0);
        assert!(!known.to_string().contains(&token));
        let tunnel = exchange.connection().tunnel();
        let stays = || {
            let admitted = exchange.fact::<Admitted>().unwrap();
            admitted.may_stay(&bench.authority, tunnel)
        };
        bench.fake.clock.advance(Duration::from_secs(10));
        assert!(stays(), "its time is over, and it is let be");
        let stored = |more: &str| {
            let hash = sha256(token.as_bytes());
            let hash: String = hash.iter().map(|octet| format!("{octet:02x}")).collect();
            let text = format!("[[credential]]\nid = \"a\"\ntoken-sha256 = [\"{hash}\"]\n{more}");
            let section = Section::parse("credentials.toml", &text).unwrap();
            Credentials::read(&section, ["default", "other"]).unwrap()
        };
        let live = "{ params = { path = \"/live\" } }";
        let dead = "{ params = { path = \"/dead\" } }";
        let path = |limit: &str| format!("resources.tunnels.scopes.tunnels.connect = {limit}");
        for (more, expected) in [
            ("revoked = true", false),
            ("", true),
            ("projects = [\"other\"]", false),
            ("permissions = [\"tunnels.resources.read-only\"]", false),
            (&path(live), true),
            (&path(dead), false),
        ] {
            bench.authority.set_credentials(stored(more));
            assert_eq!(stays(), expected, "{more}");
        }
    }

    // edge-behaviour §14.2 T21
    #[tokio::test]
    async fn a_connect_has_no_path_for_a_token_to_be_limited_to() {
        let bench = Bench::new();
        let free = bench.token(Claims {
            sub: Some("u-1".into()),
            ..Claims::default()
        });
        for (token, expected) in [
            (bench.tok("/"), "insufficient-scope from authorization"),
            (free, "pass u-1 by authorization"),
        ] {
            let request = http::Request::connect("https://db.example/")
                .header(AUTHORIZATION, format!("Bearer {token}"));
            let mut head = request.body(()).unwrap().into_parts().0;
            assert_eq!(bench.ask(&mut head, Some(Upgrade::Connect)).await, expected);
        }
    }

    // edge-behaviour §14.2 T22
    #[tokio::test]
    async fn a_cors_preflight_needs_a_token_like_anything_else() {
        let bench = Bench::new();
        let request = http::Request::options("https://a.example/")
            .header("origin", "https://b.example")
            .header("access-control-request-method", "GET");
        let mut head = request.body(()).unwrap().into_parts().0;
        assert_eq!(
            bench.ask(&mut head, None).await,
            "missing-token from unknown"
        );
    }

    #[test]
    fn filters_are_over_the_tunnel_as_the_api_lists_it() {
        let record = json!({ "name": "web", "publish": true, "labels": { "env": "prod" }, "token_auth": true });
        let tunnel = TunnelInfo {
            project: "default".into(),
            record: record.as_object().unwrap().clone(),
            ..TunnelInfo::default()
        };
        let bench = Bench::new();
        for (filters, expected) in [
            (
                json!({ "name": "web", "publish": true, "labels": { "env": "prod" } }),
                true,
            ),
            (json!({ "name": "api" }), false),
            (json!({ "token_auth": true }), true),
            (json!({ "token_auth": false }), false),
            // What the list leaves out matches nothing.
            (json!({ "mtls_auth": false }), false),
        ] {
            let tunnels = json!({ "scopes": { "tunnels": { "connect": { "filters": filters } } } });
            let token = bench.token(Claims {
                resources: Some(Resources { tunnels }),
                ..Claims::default()
            });
            let principal = bench
                .authority
                .verify(&token, bench.fake.clock.now())
                .unwrap();
            assert_eq!(
                connects(&principal, &tunnel, Some("/")),
                expected,
                "{filters}"
            );
        }
    }
}
