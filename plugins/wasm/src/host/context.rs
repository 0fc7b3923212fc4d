//! The exchange and the heads a hook is about.

use adit_filters::{Identity, Location, Upgrade, is_ambiguous_path};
use bytes::Bytes;
use http::StatusCode;
use http::uri::PathAndQuery;
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::adit::filter::context::{
    FieldError, Host, HostExchange, HostRequestHead, HostResponseHead, NotEstablished, TooMuch,
};
use crate::bindings::adit::filter::types as wit;
use crate::handles::{ExchangeHandle, FieldsHandle, HeadHandle};
use crate::state::{FieldsOf, State, gone};

/// How a plugin's word about who somebody is counts for the log and the service.
const METHOD: &str = "plugin";

impl Host for State {}
impl wit::Host for State {}

impl State {
    fn known<F: adit_filters::Fact>(&self) -> Option<&F> {
        let [of_exchange, of_connection] = &self.call.facts;
        of_exchange.get().or_else(|| of_connection.get())
    }

    fn connection(&mut self) -> Result<&adit_filters::ConnectionInfo> {
        self.called()?;
        self.call.connection.as_deref().ok_or_else(gone)
    }

    fn tunnel(&mut self) -> Result<&adit_filters::TunnelInfo> {
        self.called()?;
        self.call.tunnel.as_deref().ok_or_else(gone)
    }

    fn request(&mut self) -> Result<&mut http::request::Parts> {
        self.called()?;
        self.call.request.as_mut().ok_or_else(gone)
    }

    fn response(&mut self) -> Result<&mut http::response::Parts> {
        self.called()?;
        self.call.response.as_mut().ok_or_else(gone)
    }

    /// Puts another path and query into the request.
    fn retarget(&mut self, path: &str, query: Option<&str>) -> Result<Result<(), FieldError>> {
        let head = self.call.request.as_mut().ok_or_else(gone)?;
        Ok(match retarget(head, path, query) {
            true => Ok(()),
            false => Err(FieldError::Invalid),
        })
    }
}

/// Puts another path and query into a request, unless they are none that a filter may ask for.
#[must_use]
pub fn retarget(head: &mut http::request::Parts, path: &str, query: Option<&str>) -> bool {
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let parsed = path
        .starts_with('/')
        .then(|| PathAndQuery::try_from(target))
        .and_then(std::result::Result::ok)
        // What the service might read otherwise than later filters do is refused, whoever wrote it.
        .filter(|parsed| {
            parsed.path() == path && parsed.query() == query && !is_ambiguous_path(path)
        });
    let Some(parsed) = parsed else {
        return false;
    };
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(parsed);
    match http::Uri::from_parts(parts) {
        Ok(uri) => {
            head.uri = uri;
            true
        }
        Err(_) => false,
    }
}

impl HostExchange for State {
    fn client_address(&mut self, _: Resource<ExchangeHandle>) -> Result<String> {
        Ok(self.connection()?.peer.ip().to_string())
    }

    fn client_port(&mut self, _: Resource<ExchangeHandle>) -> Result<u16> {
        Ok(self.connection()?.peer.port())
    }

    fn transport(&mut self, _: Resource<ExchangeHandle>) -> Result<wit::Transport> {
        Ok(self.connection()?.transport.into())
    }

    fn hello(&mut self, _: Resource<ExchangeHandle>) -> Result<Option<wit::ClientHello>> {
        let hello = self.connection()?.hello.as_ref();
        Ok(hello.map(|hello| wit::ClientHello {
            server_name: hello.server_name.clone(),
            alpn: hello.alpn.iter().map(|one| one.to_vec()).collect(),
            versions: hello.versions.clone(),
            groups: hello.groups.clone(),
        }))
    }

    fn tls(&mut self, _: Resource<ExchangeHandle>) -> Result<Option<wit::TlsInfo>> {
        let tls = self.connection()?.tls.as_ref();
        Ok(tls.map(|tls| wit::TlsInfo {
            version: tls.version.to_owned(),
            cipher: tls.cipher.clone(),
            alpn: tls.alpn.clone(),
            group: tls.group.clone(),
            client_certificate_sha256: tls
                .client_certificate
                .as_ref()
                .map(|certificate| certificate.sha256.to_vec()),
        }))
    }

    fn tunnel_id(&mut self, _: Resource<ExchangeHandle>) -> Result<String> {
        Ok(self.tunnel()?.id.clone())
    }

    fn tunnel_name(&mut self, _: Resource<ExchangeHandle>) -> Result<Option<String>> {
        Ok(self.tunnel()?.name.clone())
    }

    fn tunnel_host(&mut self, _: Resource<ExchangeHandle>) -> Result<Option<String>> {
        Ok(self.tunnel()?.hostname.clone())
    }

    fn project(&mut self, _: Resource<ExchangeHandle>) -> Result<String> {
        Ok(self.tunnel()?.project.clone())
    }

    fn label(&mut self, _: Resource<ExchangeHandle>, name: String) -> Result<Option<String>> {
        Ok(self.tunnel()?.labels.get(&name).cloned())
    }

    fn tunnel_record(&mut self, _: Resource<ExchangeHandle>) -> Result<String> {
        Ok(serde_json::to_string(&self.tunnel()?.record)?)
    }

    fn location(&mut self, _: Resource<ExchangeHandle>) -> Result<Option<wit::Location>> {
        self.called()?;
        Ok(self
            .known::<Location>()
            .cloned()
            .map(|location| wit::Location {
                country: location.country,
                continent: location.continent,
                region: location.region,
                asn: location.asn,
            }))
    }

    fn identity(&mut self, _: Resource<ExchangeHandle>) -> Result<Option<wit::Identity>> {
        self.called()?;
        let known = self
            .call
            .identity
            .as_ref()
            .or_else(|| self.known::<Identity>());
        Ok(known.cloned().map(|identity| wit::Identity {
            subject: identity.subject,
            name: identity.name,
            email: identity.email,
            token_id: identity.token_id,
        }))
    }

    fn identity_method(&mut self, _: Resource<ExchangeHandle>) -> Result<Option<String>> {
        self.called()?;
        let known = self
            .call
            .identity
            .as_ref()
            .or_else(|| self.known::<Identity>());
        Ok(known.map(|identity| identity.method.to_owned()))
    }

    fn establish_identity(
        &mut self,
        _: Resource<ExchangeHandle>,
        identity: wit::Identity,
    ) -> Result<Result<(), NotEstablished>> {
        self.called()?;
        if !self.shared.grants.establish_identity {
            return Ok(Err(NotEstablished::NotGranted));
        }
        if !self.call.identifies {
            return Ok(Err(NotEstablished::NotHere));
        }
        if self.call.identity.is_some() || self.known::<Identity>().is_some() {
            return Ok(Err(NotEstablished::AlreadyKnown));
        }
        self.call.identity = Some(Identity {
            subject: identity.subject,
            method: METHOD,
            name: identity.name,
            email: identity.email,
            token_id: identity.token_id,
            ..Identity::default()
        });
        Ok(Ok(()))
    }

    fn fact(&mut self, _: Resource<ExchangeHandle>, name: String) -> Result<Option<String>> {
        self.called()?;
        let known = self.call.facts.iter().find_map(|facts| facts.json(&name));
        Ok(known.map(|value| value.to_string()))
    }

    fn upgrade(&mut self, _: Resource<ExchangeHandle>) -> Result<Option<wit::Upgrade>> {
        self.called()?;
        Ok(self.call.upgrade.map(|upgrade: Upgrade| upgrade.into()))
    }

    fn variable(&mut self, _: Resource<ExchangeHandle>, name: String) -> Result<Option<Vec<u8>>> {
        self.called()?;
        let own = self.call.variables.iter().chain(&self.call.inherited);
        Ok(own
            .filter_map(|variables| variables.get(&name))
            .map(|value| value.to_vec())
            .next())
    }

    fn set_variable(
        &mut self,
        _: Resource<ExchangeHandle>,
        name: String,
        value: Vec<u8>,
    ) -> Result<Result<(), TooMuch>> {
        self.called()?;
        let max = self.shared.limits.variable_bytes;
        let variables = self.call.variables.as_ref().ok_or_else(gone)?;
        Ok(match variables.set(name, Bytes::from(value), max) {
            true => Ok(()),
            false => Err(TooMuch::TooMuch),
        })
    }

    fn drop(&mut self, _: Resource<ExchangeHandle>) -> Result<()> {
        Ok(())
    }
}

impl HostRequestHead for State {
    fn method(&mut self, _: Resource<HeadHandle>) -> Result<String> {
        Ok(self.request()?.method.to_string())
    }

    fn scheme(&mut self, _: Resource<HeadHandle>) -> Result<String> {
        Ok(self
            .request()?
            .uri
            .scheme_str()
            .unwrap_or_default()
            .to_owned())
    }

    fn authority(&mut self, _: Resource<HeadHandle>) -> Result<String> {
        let authority = self.request()?.uri.authority();
        Ok(authority.map(ToString::to_string).unwrap_or_default())
    }

    fn path(&mut self, _: Resource<HeadHandle>) -> Result<String> {
        Ok(self.request()?.uri.path().to_owned())
    }

    fn query(&mut self, _: Resource<HeadHandle>) -> Result<Option<String>> {
        Ok(self.request()?.uri.query().map(str::to_owned))
    }

    fn set_path(
        &mut self,
        _: Resource<HeadHandle>,
        path: String,
    ) -> Result<Result<(), FieldError>> {
        let query = self.request()?.uri.query().map(str::to_owned);
        self.retarget(&path, query.as_deref())
    }

    fn set_query(
        &mut self,
        _: Resource<HeadHandle>,
        query: Option<String>,
    ) -> Result<Result<(), FieldError>> {
        let path = self.request()?.uri.path().to_owned();
        self.retarget(&path, query.as_deref())
    }

    fn fields(&mut self, _: Resource<HeadHandle>) -> Result<Resource<FieldsHandle>> {
        self.request()?;
        Ok(Resource::new_own(FieldsOf::Request.number()))
    }

    fn drop(&mut self, _: Resource<HeadHandle>) -> Result<()> {
        Ok(())
    }
}

impl HostResponseHead for State {
    fn status(&mut self, _: Resource<HeadHandle>) -> Result<u16> {
        Ok(self.response()?.status.as_u16())
    }

    fn set_status(
        &mut self,
        _: Resource<HeadHandle>,
        status: u16,
    ) -> Result<Result<(), FieldError>> {
        let head = self.response()?;
        // A status that says how the message is framed, or that HTTP ends, is not a filter's to give or take.
        let framing = |status: StatusCode| {
            status.is_informational()
                || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        };
        Ok(match StatusCode::from_u16(status) {
            Ok(status) if framing(status) || framing(head.status) => Err(FieldError::Reserved),
            Ok(status) => {
                head.status = status;
                Ok(())
            }
            Err(_) => Err(FieldError::Invalid),
        })
    }

    fn fields(&mut self, _: Resource<HeadHandle>) -> Result<Resource<FieldsHandle>> {
        self.response()?;
        Ok(Resource::new_own(FieldsOf::Response.number()))
    }

    fn drop(&mut self, _: Resource<HeadHandle>) -> Result<()> {
        Ok(())
    }
}
