//! What the host offers.

/// The filter's own log.
pub mod log {
    use crate::bindings::adit::filter::log::{Level, log};

    /// For whoever looks for a fault.
    pub fn debug(message: impl AsRef<str>) {
        log(Level::Debug, message.as_ref());
    }

    /// For the operator.
    pub fn info(message: impl AsRef<str>) {
        log(Level::Info, message.as_ref());
    }

    /// Something should be otherwise.
    pub fn warn(message: impl AsRef<str>) {
        log(Level::Warn, message.as_ref());
    }

    /// Something does not work.
    pub fn error(message: impl AsRef<str>) {
        log(Level::Error, message.as_ref());
    }
}

/// The time.
pub mod clock {
    use std::time::{Duration, SystemTime};

    /// The calendar's time; it may jump.
    #[must_use]
    pub fn now() -> SystemTime {
        let since = crate::bindings::adit::filter::clock::now_ms();
        SystemTime::UNIX_EPOCH + Duration::from_millis(since)
    }

    /// Time since some fixed moment; it never goes back.
    #[must_use]
    pub fn monotonic() -> Duration {
        Duration::from_micros(crate::bindings::adit::filter::clock::monotonic_us())
    }
}

/// Randomness fit for keys.
pub mod random {
    /// So many random bytes, at most 4,096 in all.
    #[must_use]
    pub fn bytes<const COUNT: usize>() -> [u8; COUNT] {
        let bytes = crate::bindings::adit::filter::random::bytes(COUNT as u32);
        bytes
            .try_into()
            .expect("the host gives as many as it is asked for")
    }
}

/// A bounded key-value store, shared by all instances of the filter.
pub mod store {
    use std::time::Duration;

    use crate::bindings::adit::filter::store as host;

    pub use host::StoreError;

    fn ms(ttl: Duration) -> u64 {
        u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
    }

    /// The value, if it is still there.
    #[must_use]
    pub fn get(key: &str) -> Option<Vec<u8>> {
        host::get(key)
    }

    /// Puts a value.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn set(key: &str, value: &[u8], ttl: Duration) -> Result<(), StoreError> {
        host::set(key, value, ms(ttl))
    }

    /// Adds to a number and answers the sum.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add(key: &str, by: i64, ttl: Duration) -> Result<i64, StoreError> {
        host::add(key, by, ms(ttl))
    }

    /// Forgets a value.
    pub fn remove(key: &str) {
        host::remove(key);
    }
}

/// Metrics of the filter's own.
pub mod metrics {
    use crate::bindings::adit::filter::metrics as host;

    pub use host::MetricsError;

    /// Adds to a number that only grows.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub fn add(name: &str, by: u64) -> Result<(), MetricsError> {
        host::add(name, by)
    }

    /// Sets a number that goes up and down.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub fn set(name: &str, to: i64) -> Result<(), MetricsError> {
        host::set(name, to)
    }
}

/// Outbound HTTP, to hosts that the operator allows.
pub mod http {
    use std::time::Duration;

    use crate::bindings::adit::filter::http_client as host;
    use crate::bindings::adit::filter::types::Field;

    pub use host::{FetchError, Response};

    /// A request to be sent.
    #[derive(Clone, Debug)]
    pub struct Fetch(host::Request);

    /// `GET` of an address.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Fetch {
        request("GET", url)
    }

    /// A request with any method.
    #[must_use]
    pub fn request(method: &str, url: impl Into<String>) -> Fetch {
        Fetch(host::Request {
            method: method.to_owned(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: 1000,
        })
    }

    impl Fetch {
        /// The same with one more field.
        #[must_use]
        pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
            self.0.headers.push(Field {
                name: name.to_ascii_lowercase(),
                value: value.as_ref().to_vec(),
            });
            self
        }

        /// The same with this body.
        #[must_use]
        pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
            self.0.body = body.into();
            self
        }

        /// The same with so much time; a second without it.
        #[must_use]
        pub fn timeout(mut self, timeout: Duration) -> Self {
            self.0.timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            self
        }

        /// Sends it and waits for the whole answer.
        ///
        /// # Errors
        /// [`FetchError`].
        pub fn send(self) -> Result<Response, FetchError> {
            host::fetch(&self.0)
        }
    }
}
