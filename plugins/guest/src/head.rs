//! Heads that read like those of the `http` crate.

use crate::bindings::adit::filter::context::{
    Exchange, FieldError, Fields, RequestHead, ResponseHead,
};

impl Fields {
    /// The first value of a field, as text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        let value = self.get(name).into_iter().next()?;
        String::from_utf8(value).ok()
    }
}

impl RequestHead {
    /// The first value of a field, as text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        self.fields().text(name)
    }

    /// Puts a value into a field, in place of all there are.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn set_field(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        self.fields().set(name, value.as_ref())
    }

    /// The value of a cookie.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<String> {
        let fields = self.fields().get("cookie");
        let fields = fields
            .into_iter()
            .filter_map(|value| String::from_utf8(value).ok());
        fields.into_iter().find_map(|field| {
            field.split(';').find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == name).then(|| value.to_owned())
            })
        })
    }
}

impl ResponseHead {
    /// The first value of a field, as text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        self.fields().text(name)
    }

    /// Puts a value into a field, in place of all there are.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn set_field(&self, name: &str, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        self.fields().set(name, value.as_ref())
    }

    /// Sets a cookie beside those there are.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn set_cookie(&self, cookie: &str) -> Result<(), FieldError> {
        self.fields().append("set-cookie", cookie.as_bytes())
    }
}

impl Exchange {
    /// What this filter has kept for the exchange, as text.
    #[must_use]
    pub fn kept(&self, name: &str) -> Option<String> {
        String::from_utf8(self.variable(name)?).ok()
    }

    /// Keeps a text for later phases of the exchange; false if that is too much.
    pub fn keep(&self, name: &str, text: &str) -> bool {
        self.set_variable(name, text.as_bytes()).is_ok()
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
#[must_use]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let differ = one
        .iter()
        .zip(other)
        .fold(0, |differ, (one, other)| differ | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differ) == 0
}
