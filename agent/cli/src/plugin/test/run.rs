//! One case on the engine's own chain and host.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_config::{Problem, Section};
use adit_filters::{
    BodyFlow, By, Cause, Chain, Connected, ConnectionInfo, Decision, Env, Exchange, Factory as _,
    Identity, Location, Outcome, Passed, Placed, Refusal, Reply, RequestId, RequestLine, Revised,
    Settled, Settlement, Termination, TlsInfo, Transport, TunnelInfo,
};
use adit_proxy::edge;
use adit_wasm::Plugin;
use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, request, response};

use super::cases::{Case, Texts};
use super::world::{Before, headers};

/// What the filter under test is called.
pub(super) const NAME: &str = "test/filter";

/// What came of a case.
pub(super) struct Came {
    pub(super) verdict: Verdict,
    /// The request as the service gets it; none if it gets none.
    pub(super) request: Option<(request::Parts, Vec<u8>)>,
    /// The response as the visitor gets it, if the service was asked.
    pub(super) response: Option<Answer>,
    /// Who the visitor is, by the filter's word.
    pub(super) identity: Option<String>,
    pub(super) time: Duration,
}

/// What was decided in the end, by whatever phase.
pub(super) enum Verdict {
    Continue,
    Upgrade,
    Respond(Box<Answer>),
    Redirect {
        status: StatusCode,
        location: String,
    },
    Refuse(Refusal),
    Close,
    Misconfigured(Vec<Problem>),
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self {
            status: reply.status,
            headers: reply.headers,
            body: reply.body.to_vec(),
        }
    }
}

/// The filter of a case in a chain of its own, or what is wrong with its table.
pub(super) fn chain(
    plugin: &Plugin,
    case: &Case,
    config: &Section,
    mut env: Env,
) -> anyhow::Result<Result<Chain, Vec<Problem>>> {
    let hooks = match plugin.build(config, &mut env) {
        Ok(hooks) => hooks,
        Err(problems) => return Ok(Err(problems)),
    };
    let asked = &case.request;
    let location = Location {
        country: asked.country.clone(),
        continent: asked.continent.clone(),
        region: asked.region.clone(),
        asn: asked.asn,
    };
    let before = Before {
        location: (location != Location::default()).then_some(location),
        identity: asked.identity.as_ref().map(|known| Identity {
            subject: known.subject.clone(),
            method: known.method.as_str(),
            name: known.name.clone(),
            email: known.email.clone(),
            token_id: known.token_id.clone(),
            certificate_sha256: None,
        }),
    };
    let filters = vec![
        Placed::new("test/before", before.hooks()),
        Placed::new(NAME, hooks),
    ];
    Chain::compile(filters)
        .map(Ok)
        .map_err(|error| anyhow!("{error}"))
}

/// Sends a case's request through the chain, and the response back.
pub(super) async fn send(chain: &Chain, case: &Case) -> anyhow::Result<Came> {
    let (head, upgrade) = head(case)?;
    let mut answer = answer(case)?;
    let begun = Instant::now();
    let started = SystemTime::now();
    let line = RequestLine::of(&head, chain.logged_request_fields());
    let mut head = head;
    let known = case.request.identity.is_some();
    let connected = chain
        .connect(Arc::new(connection(case)), Arc::new(tunnel(case)))
        .await;
    let mut came = Came {
        verdict: Verdict::Close,
        request: None,
        response: None,
        identity: None,
        time: Duration::ZERO,
    };
    let exchange = match connected {
        Connected::Refused {
            refusal,
            connection,
        } => {
            came.verdict = Verdict::Refuse(refusal);
            chain.denied(connection)
        }
        Connected::Close { connection, .. } => chain.denied(connection),
        Connected::Admitted(connection) => {
            let mut exchange = chain.exchange(connection);
            let decision = chain.request(&mut head, &mut exchange, upgrade).await;
            came.identity = exchange
                .facts()
                .get::<Identity>()
                .filter(|_| !known)
                .map(|identity| identity.subject.clone());
            came.verdict = match decision {
                Decision::Pass { upgrade: true } => {
                    came.request = Some((head, Vec::new()));
                    Verdict::Upgrade
                }
                Decision::Pass { upgrade: false } => {
                    let sent =
                        carried(chain.request_body(&exchange), &exchange, &case.request.body);
                    match sent {
                        Ok(body) => {
                            came.request = Some((head, body));
                            let back = back(chain, &exchange, &mut answer, &case.response.body);
                            match back.await {
                                Ok(()) => {
                                    came.response = Some(answer);
                                    Verdict::Continue
                                }
                                Err(stopped) => stopped,
                            }
                        }
                        Err(stopped) => stopped,
                    }
                }
                Decision::Respond { reply, .. } => Verdict::Respond(Box::new((*reply).into())),
                Decision::Redirect { redirect, .. } => Verdict::Redirect {
                    status: redirect.status,
                    location: String::from_utf8_lossy(redirect.location.as_bytes()).into_owned(),
                },
                Decision::Refuse(refusal) => Verdict::Refuse(refusal),
                Decision::Close { .. } => Verdict::Close,
            };
            exchange
        }
    };
    if chain.takes_log() {
        let outcome = outcome(&came, line, started, begun.elapsed());
        chain.log(&exchange, &Arc::new(outcome));
    }
    came.time = begun.elapsed();
    Ok(came)
}

/// The request as filters see it, with the upgrade it asks for.
fn head(case: &Case) -> anyhow::Result<(request::Parts, Option<adit_filters::Upgrade>)> {
    let asked = &case.request;
    let fields = headers(&asked.headers).map_err(|why| anyhow!(why))?;
    let mut head = http::Request::builder()
        .method(asked.method.as_str())
        .uri(asked.path.as_str());
    if !fields.contains_key(http::header::HOST) {
        let host = asked.host.as_ref().unwrap_or(&case.tunnel.host);
        head = head.header(http::header::HOST, host);
    }
    let (mut head, ()) = head.body(()).context("not a request")?.into_parts();
    head.headers.extend(fields);
    edge::imagined(head).map_err(|failure| {
        anyhow!(
            "the edge refuses it before any filter: {}",
            failure.status()
        )
    })
}

/// The service's response, with no body yet.
fn answer(case: &Case) -> anyhow::Result<Answer> {
    Ok(Answer {
        status: case.response.status.0,
        headers: headers(&case.response.headers).map_err(|why| anyhow!(why))?,
        body: Vec::new(),
    })
}

fn connection(case: &Case) -> ConnectionInfo {
    ConnectionInfo {
        id: 0,
        peer: SocketAddr::new(case.request.from.to_canonical(), 50_000),
        transport: Transport::Tls,
        hello: None,
        tls: Some(TlsInfo {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384".to_owned(),
            alpn: Some("http/1.1".to_owned()),
            group: Some("X25519MLKEM768".to_owned()),
            certificate_for: None,
            client_certificate: None,
        }),
    }
}

fn tunnel(case: &Case) -> TunnelInfo {
    let tunnel = &case.tunnel;
    TunnelInfo {
        id: tunnel.id.clone(),
        name: tunnel.name.clone(),
        project: tunnel.project.clone(),
        hostname: Some(tunnel.host.clone()),
        published: true,
        protocol: Some("http".to_owned()),
        kind: "bytestream".to_owned(),
        labels: tunnel.labels.clone(),
        ..TunnelInfo::default()
    }
}

/// Sends a response's head and body back up.
async fn back(
    chain: &Chain,
    exchange: &Exchange,
    answer: &mut Answer,
    pieces: &Texts,
) -> Result<(), Verdict> {
    let (mut head, ()): (response::Parts, ()) = http::Response::new(()).into_parts();
    head.status = answer.status;
    head.headers = std::mem::take(&mut answer.headers);
    match chain.response(&mut head, exchange).await {
        Revised::Keep => {
            answer.status = head.status;
            answer.headers = head.headers;
            answer.body = carried(chain.response_body(exchange), exchange, pieces)?;
            Ok(())
        }
        Revised::Replace(reply) => {
            *answer = (*reply).into();
            let whole = Texts(vec![String::from_utf8_lossy(&answer.body).into_owned()]);
            answer.body = carried(chain.response_body(exchange), exchange, &whole)?;
            Ok(())
        }
        Revised::Refuse(refusal) => Err(Verdict::Refuse(refusal)),
        Revised::Close { .. } => Err(Verdict::Close),
    }
}

/// Gives a body to the filters piece by piece; what went on.
fn carried(
    flow: Option<BodyFlow>,
    exchange: &Exchange,
    pieces: &Texts,
) -> Result<Vec<u8>, Verdict> {
    let Some(mut flow) = flow else {
        return Ok(pieces.0.concat().into_bytes());
    };
    let max = flow.piece_max();
    let mut pieces: Vec<Bytes> = pieces
        .0
        .iter()
        .flat_map(|piece| piece.as_bytes().chunks(max))
        .map(Bytes::copy_from_slice)
        .collect();
    let last = pieces.pop().unwrap_or_default();
    let pieces = pieces.into_iter().map(|piece| (piece, false));
    let mut whole = Vec::new();
    let mut stopped = None;
    for (piece, last) in pieces.chain([(last, true)]) {
        stopped = match flow.pass(exchange, piece, last, None) {
            Passed::Forward(bytes) | Passed::Pace(bytes, _) => {
                whole.extend_from_slice(&bytes);
                None
            }
            Passed::Held => None,
            Passed::Refuse(refusal) => Some(Verdict::Refuse(refusal)),
            Passed::Respond { reply, .. } => Some(Verdict::Respond(Box::new((*reply).into()))),
            Passed::Close { .. } => Some(Verdict::Close),
        };
        if stopped.is_some() {
            break;
        }
    }
    flow.finish(exchange);
    stopped.map_or(Ok(whole), Err)
}

/// What the log is told.
fn outcome(came: &Came, request: RequestLine, started: SystemTime, duration: Duration) -> Outcome {
    let settled = |how| {
        Some(Settled {
            by: NAME.into(),
            how,
        })
    };
    let (status, refusal, settled) = match &came.verdict {
        Verdict::Continue | Verdict::Upgrade | Verdict::Misconfigured(_) => {
            let status = came.response.as_ref().map(|answer| answer.status.as_u16());
            (status, None, None)
        }
        Verdict::Respond(answer) => {
            let status = Some(answer.status.as_u16());
            (status, None, settled(Settlement::Answered))
        }
        Verdict::Redirect { status, .. } => {
            let status = Some(status.as_u16());
            (status, None, settled(Settlement::Redirected))
        }
        Verdict::Refuse(refusal) => {
            let status = adit_proxy::render::status_of(refusal.reason).as_u16();
            (Some(status), Some(refusal.clone()), None)
        }
        Verdict::Close => (None, None, settled(Settlement::Closed)),
    };
    let bytes = |body: Option<&Vec<u8>>| body.map_or(0, |body| body.len() as u64);
    Outcome {
        request,
        version: http::Version::HTTP_11,
        status,
        response: adit_filters::Fields::default(),
        started,
        duration,
        establish: None,
        bytes_up: bytes(came.request.as_ref().map(|(_, body)| body)),
        bytes_down: bytes(came.response.as_ref().map(|answer| &answer.body)),
        refusal,
        settled,
        failure: None,
        termination: Termination::new(By::Server, Cause::Closed),
        upgrade: None,
        request_id: RequestId::default(),
    }
}
