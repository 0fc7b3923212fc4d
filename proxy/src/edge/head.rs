//! A request's head as filters see it, whoever made it.

use adit_filters::Upgrade;
use http::{HeaderValue, Uri, header, request, uri};

use super::fields;
use super::target;
use super::upgrade::Asked;
use crate::render::Failure;

/// Checks authority and path, and makes the URI absolute. `default` stands in for the authority that an HTTP/1.0
/// request need not have. Returns the host asked for, as tunnels are looked up.
///
/// # Errors
/// `BadRequest` where it could be read in two ways.
pub(super) fn absolute(
    head: &mut request::Parts,
    default: Option<&str>,
) -> Result<String, Failure> {
    let authority = target::authority(&head.uri, &head.headers, default)?;
    target::unambiguous(head.uri.path())?;
    let host = target::host(&authority);
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.scheme = Some(uri::Scheme::HTTPS);
    parts.authority = Some(authority);
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(uri::PathAndQuery::from_static("/"));
    }
    head.uri = Uri::from_parts(parts).map_err(|_| Failure::BadRequest)?;
    Ok(host)
}

/// Takes off what concerns the connection alone, but for the upgrade that is on offer: who grants one has to see it,
/// and it goes no further than the filters. Returns whether trailers are welcome.
pub(super) fn for_filters(head: &mut request::Parts, asked: Option<&Asked>) -> bool {
    let offered: Vec<HeaderValue> = match asked {
        Some(_) => {
            let offered = head.headers.get_all(header::UPGRADE);
            offered.iter().cloned().collect()
        }
        None => Vec::new(),
    };
    let trailers = fields::strip_hop_by_hop(&mut head.headers);
    for protocol in offered {
        head.headers.append(header::UPGRADE, protocol);
    }
    trailers
}

/// Makes of a head that nobody sent what filters would see of it over HTTP/1.1, with the upgrade it asks for.
///
/// # Errors
/// What the edge would answer before it asks any filter.
pub fn imagined(mut head: request::Parts) -> Result<(request::Parts, Option<Upgrade>), Failure> {
    head.version = http::Version::HTTP_11;
    let asked = Asked::of_http1(&head.method, head.version, &head.headers);
    if asked.as_ref().is_some_and(|asked| !asked.is_served()) {
        return Err(Failure::Unsupported);
    }
    absolute(&mut head, None)?;
    for_filters(&mut head, asked.as_ref());
    Ok((head, asked.map(|asked| asked.kind)))
}
