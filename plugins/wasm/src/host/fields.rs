//! Fields of heads and trailers.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use wasmtime::Result;
use wasmtime::component::Resource;

use crate::bindings::adit::filter::context::{FieldError, HostFields};
use crate::bindings::adit::filter::types as wit;
use crate::handles::FieldsHandle;
use crate::state::{FieldsOf, State};

/// Fields that are the edge's: framing and what concerns one connection (RFC 9110 §7.6.1), and what it tells services
/// of visitors.
const RESERVED: [&str; 13] = [
    "connection",
    "content-length",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-real-ip",
];

/// Beginnings of names that are the edge's.
const RESERVED_PREFIXES: [&str; 2] = ["x-forwarded-", "x-rstream-"];

/// Why a filter may not change a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FieldRefused {
    /// It is no name of a field.
    Invalid,
    /// It is the edge's.
    Reserved,
}

impl From<FieldRefused> for FieldError {
    fn from(refused: FieldRefused) -> Self {
        match refused {
            FieldRefused::Invalid => Self::Invalid,
            FieldRefused::Reserved => Self::Reserved,
        }
    }
}

/// The name of a field that a filter may change.
///
/// # Errors
/// [`FieldRefused`].
pub fn own_field(name: &str) -> std::result::Result<HeaderName, FieldRefused> {
    let name = HeaderName::try_from(name).map_err(|_| FieldRefused::Invalid)?;
    let text = name.as_str();
    let reserved = RESERVED.contains(&text)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| text.starts_with(prefix));
    match reserved {
        true => Err(FieldRefused::Reserved),
        false => Ok(name),
    }
}

fn own(name: &str) -> std::result::Result<HeaderName, FieldError> {
    Ok(own_field(name)?)
}

impl State {
    fn value(&self, value: Vec<u8>) -> std::result::Result<HeaderValue, FieldError> {
        if value.len() > self.shared.limits.field_bytes {
            return Err(FieldError::TooMany);
        }
        HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|_| FieldError::Invalid)
    }

    /// Puts a value into a field, in place of all there are or beside them.
    fn put(
        &mut self,
        of: FieldsOf,
        name: &str,
        value: Vec<u8>,
        beside: bool,
    ) -> Result<std::result::Result<(), FieldError>> {
        let max = self.shared.limits.fields;
        let known = own(name).and_then(|name| Ok((name, self.value(value)?)));
        let fields = self.fields(of)?;
        Ok(known.and_then(|(name, value)| {
            let grows = beside || !fields.contains_key(&name);
            if grows && fields.len() >= max {
                return Err(FieldError::TooMany);
            }
            let put = match beside {
                true => fields.try_append(name, value).map(|_| ()),
                false => fields.try_insert(name, value).map(|_| ()),
            };
            put.map_err(|_| FieldError::TooMany)
        }))
    }
}

impl HostFields for State {
    fn get(&mut self, handle: Resource<FieldsHandle>, name: String) -> Result<Vec<Vec<u8>>> {
        self.called()?;
        let fields = self.fields(FieldsOf::of(handle.rep()))?;
        let values = fields.get_all(&name).iter();
        Ok(values.map(|value| value.as_bytes().to_vec()).collect())
    }

    fn all(&mut self, handle: Resource<FieldsHandle>) -> Result<Vec<wit::Field>> {
        self.called()?;
        let fields = self.fields(FieldsOf::of(handle.rep()))?;
        let all = fields.iter().map(|(name, value)| wit::Field {
            name: name.as_str().to_owned(),
            value: value.as_bytes().to_vec(),
        });
        Ok(all.collect())
    }

    fn set(
        &mut self,
        handle: Resource<FieldsHandle>,
        name: String,
        value: Vec<u8>,
    ) -> Result<std::result::Result<(), FieldError>> {
        self.called()?;
        self.put(FieldsOf::of(handle.rep()), &name, value, false)
    }

    fn append(
        &mut self,
        handle: Resource<FieldsHandle>,
        name: String,
        value: Vec<u8>,
    ) -> Result<std::result::Result<(), FieldError>> {
        self.called()?;
        self.put(FieldsOf::of(handle.rep()), &name, value, true)
    }

    fn remove(
        &mut self,
        handle: Resource<FieldsHandle>,
        name: String,
    ) -> Result<std::result::Result<(), FieldError>> {
        self.called()?;
        let fields = self.fields(FieldsOf::of(handle.rep()))?;
        Ok(own(&name).map(|name| {
            fields.remove(name);
        }))
    }

    fn drop(&mut self, _: Resource<FieldsHandle>) -> Result<()> {
        Ok(())
    }
}
