//! What to ask of the engine when a tunnel is created.

use adit_protocol::message::TunnelProperties;

/// A tunnel to be created. What is not said is left to the engine.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct TunnelOptions {
    properties: TunnelProperties,
    suggested: Option<String>,
}

impl TunnelOptions {
    /// A tunnel about which nothing is said: the engine publishes it, for HTTP.
    pub fn new() -> Self {
        Self::default()
    }

    /// A published tunnel for HTTP.
    pub fn http() -> Self {
        Self::new().publish(true).protocol("http")
    }

    /// A tunnel reached by [`dial`](crate::Client::dial) alone.
    pub fn private(name: impl Into<String>) -> Self {
        Self::new()
            .publish(false)
            .name(name)
            .with(|properties| properties.r#type = Some("bytestream".to_owned()))
    }

    /// The name, unique among the project's live tunnels.
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with(|properties| properties.name = Some(name.into()))
    }

    /// Whether the public can reach it.
    pub fn publish(self, publish: bool) -> Self {
        self.with(|properties| properties.publish = Some(publish))
    }

    /// What visitors speak: `http`, `tls` or `tcp`.
    pub fn protocol(self, protocol: impl Into<String>) -> Self {
        self.with(|properties| properties.protocol = Some(protocol.into()))
    }

    /// The public host name wished for. Without one the engine chooses; a client asks for the same
    /// again when it reconnects.
    pub fn hostname(self, hostname: impl Into<String>) -> Self {
        self.with(|properties| properties.hostname = Some(hostname.into()))
    }

    /// A public host name to ask for as long as the engine does not refuse it; it may choose another.
    /// For names that were made up, such as those of
    /// [`hostname::derive`](adit_protocol::hostname::derive).
    pub fn suggest_hostname(mut self, hostname: impl Into<String>) -> Self {
        self.suggested = Some(hostname.into());
        self
    }

    /// A label, shown in listings.
    pub fn label(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(|properties| {
            properties.labels.insert(key.into(), value.into());
        })
    }

    /// The HTTP version the engine speaks to the service: `http/1.1` or `h2c`.
    pub fn http_version(self, version: impl Into<String>) -> Self {
        self.with(|properties| properties.http_version = Some(version.into()))
    }

    /// Whether the engine speaks TLS to the service.
    pub fn upstream_tls(self, tls: bool) -> Self {
        self.with(|properties| properties.upstream_tls = Some(tls))
    }

    /// Addresses and CIDR ranges from which alone visitors may come.
    pub fn trusted_ips(self, ranges: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.with(|properties| {
            properties.trusted_ips = ranges.into_iter().map(Into::into).collect();
        })
    }

    /// Whether visitors must present a token.
    pub fn token_auth(self, required: bool) -> Self {
        self.with(|properties| properties.token_auth = Some(required))
    }

    /// Changes any property.
    pub fn with(mut self, change: impl FnOnce(&mut TunnelProperties)) -> Self {
        change(&mut self.properties);
        self
    }

    pub(crate) fn suggested(&self) -> Option<&str> {
        self.suggested.as_deref()
    }

    /// What goes to the engine.
    #[must_use]
    pub const fn properties(&self) -> &TunnelProperties {
        &self.properties
    }
}
