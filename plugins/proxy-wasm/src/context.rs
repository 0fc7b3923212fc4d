//! What the host keeps for one context of an exchange.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use adit_filters::{BODY_HOLD_MAX, Connection, Exchange, Facts, Identity, Outcome, Reply};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header, request, response};
use tokio::sync::Notify;

use crate::abi::{Map, Pairs, Status, Way};
use adit_wasm::Limits;
use adit_wasm::module::{FieldRefused, own_field, retarget};

/// How large a body may get by what a filter puts into it, in bytes.
const BODY_BYTES_MAX: usize = 4 * BODY_HOLD_MAX;

/// What the host keeps for one context of an exchange.
pub(crate) struct Context {
    pub(crate) connection: Arc<Connection>,
    facts: Facts,
    pub(crate) started: SystemTime,
    /// The heads: the real ones while they are lent, else as they went on.
    pub(crate) request: Option<request::Parts>,
    pub(crate) response: Option<response::Parts>,
    pub(crate) trailers: [Option<HeaderMap>; 2],
    /// What may be changed now.
    lent: Option<Map>,
    /// What was last lent, and how many fields it came with.
    came: Option<(Map, usize)>,
    pub(crate) bodies: [Buffer; 2],
    /// The body that may be seen now.
    pub(crate) open: Option<Way>,
    /// Whether the head said that nothing follows.
    pub(crate) ended: [bool; 2],
    /// The visitor has not been answered yet.
    pub(crate) may_reply: bool,
    pub(crate) reply: Option<Box<Reply>>,
    pub(crate) closed: bool,
    pub(crate) resumed: [bool; 2],
    properties: BTreeMap<Vec<u8>, Bytes>,
    property_bytes: usize,
    pub(crate) outcome: Option<Arc<Outcome>>,
    /// The filter has asked for time before it is done.
    pub(crate) deferred: bool,
    /// How many of its calls are under way.
    pub(crate) calls: usize,
    /// Wakes the hook that waits for this context.
    pub(crate) wake: Arc<Notify>,
}

/// A body, or what of it waits for the filter.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Bytes,
    pub(crate) changed: bool,
}

impl Buffer {
    pub(crate) fn push(&mut self, piece: &Bytes) {
        if self.bytes.is_empty() {
            self.bytes = piece.clone();
        } else if !piece.is_empty() {
            let mut whole = BytesMut::from(std::mem::take(&mut self.bytes));
            whole.extend_from_slice(piece);
            self.bytes = whole.freeze();
        }
    }

    /// Puts a value in the place of a part.
    pub(crate) fn put(&mut self, start: usize, length: usize, value: &[u8]) -> Result<(), Status> {
        let start = start.min(self.bytes.len());
        let end = start.saturating_add(length).min(self.bytes.len());
        let (before, after) = (self.bytes.slice(..start), self.bytes.slice(end..));
        let whole = before.len() + value.len() + after.len();
        if whole > BODY_BYTES_MAX.max(self.bytes.len()) {
            return Err(Status::BadArgument);
        }
        let mut bytes = BytesMut::with_capacity(whole);
        bytes.extend_from_slice(&before);
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(&after);
        self.bytes = bytes.freeze();
        self.changed = true;
        Ok(())
    }
}

/// What came of a change that was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Changed {
    Yes,
    /// It is the edge's and stays as it is.
    Kept,
}

impl Context {
    pub(crate) fn new(exchange: &Exchange, started: SystemTime) -> Self {
        Self {
            connection: Arc::clone(exchange.connection()),
            facts: exchange.facts().so_far(),
            started,
            request: None,
            response: None,
            trailers: [None, None],
            lent: None,
            came: None,
            bodies: Default::default(),
            open: None,
            ended: [false; 2],
            may_reply: true,
            reply: None,
            closed: false,
            resumed: [false; 2],
            properties: BTreeMap::new(),
            property_bytes: 0,
            outcome: None,
            deferred: false,
            calls: 0,
            wake: Arc::default(),
        }
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.facts.get().or_else(|| self.connection.fact())
    }

    pub(crate) fn property(&self, path: &[u8]) -> Option<Bytes> {
        self.properties.get(path).cloned()
    }

    pub(crate) fn set_property(
        &mut self,
        path: Vec<u8>,
        value: Vec<u8>,
        max: usize,
    ) -> Result<(), Status> {
        let old = self.properties.get(&path);
        let old = old.map_or(0, |old| path.len() + old.len());
        let bytes = self.property_bytes - old + path.len() + value.len();
        if bytes > max {
            return Err(Status::InternalFailure);
        }
        self.property_bytes = bytes;
        self.properties.insert(path, value.into());
        Ok(())
    }

    fn fields(&self, map: Map) -> Option<&HeaderMap> {
        match map {
            Map::Headers(Way::Request) => Some(&self.request.as_ref()?.headers),
            Map::Headers(Way::Response) => Some(&self.response.as_ref()?.headers),
            Map::Trailers(way) => self.trailers.get(way as usize)?.as_ref(),
            Map::CallHeaders | Map::Nothing => None,
        }
    }

    fn fields_mut(&mut self, map: Map) -> Result<&mut HeaderMap, Status> {
        if self.lent != Some(map) {
            return Err(Status::BadArgument);
        }
        let fields = match map {
            Map::Headers(Way::Request) => self.request.as_mut().map(|head| &mut head.headers),
            Map::Headers(Way::Response) => self.response.as_mut().map(|head| &mut head.headers),
            Map::Trailers(way) => self.trailers.get_mut(way as usize).and_then(Option::as_mut),
            Map::CallHeaders | Map::Nothing => None,
        };
        fields.ok_or(Status::BadArgument)
    }

    /// Lets the filter change what is in a map.
    pub(crate) fn lend(&mut self, map: Map) {
        self.lent = Some(map);
        // A head that is paused is lent several times.
        if self.came.is_none_or(|(known, _)| known != map) {
            self.came = Some((map, self.fields(map).map_or(0, HeaderMap::len)));
        }
    }

    /// Lets it change nothing any more.
    pub(crate) fn keep(&mut self) {
        self.lent = None;
    }

    /// Everything in a map, with what is no field under the names that begin with a colon.
    pub(crate) fn pairs(&self, map: Map) -> Pairs {
        let mut pairs = Vec::new();
        let special: &[&str] = match map {
            Map::Headers(Way::Request) => &[":authority", ":path", ":method", ":scheme"],
            Map::Headers(Way::Response) => &[":status"],
            _ => &[],
        };
        for name in special {
            if let Some(value) = self.special(map, name) {
                pairs.push(((*name).to_owned(), value.into_bytes()));
            }
        }
        let fields = self.fields(map).into_iter().flat_map(HeaderMap::iter);
        let own = fields.filter(|(name, _)| special.len() < 2 || *name != header::HOST);
        pairs.extend(own.map(|(name, value)| (name.as_str().to_owned(), shown(value))));
        pairs
    }

    /// How many pairs there are.
    pub(crate) fn count(&self, map: Map) -> usize {
        let fields = self.fields(map).map_or(0, HeaderMap::len);
        match (map, &self.request) {
            (Map::Headers(Way::Request), Some(head)) => {
                let hosts = head.headers.get_all(header::HOST).iter().count();
                let special = [":authority", ":path", ":method", ":scheme"];
                let special = special
                    .iter()
                    .filter(|name| self.special(map, name).is_some());
                fields - hosts + special.count()
            }
            (Map::Headers(Way::Response), _) if self.response.is_some() => fields + 1,
            _ => fields,
        }
    }

    /// One value; those of a field that is there more than once in one.
    pub(crate) fn value(&self, map: Map, name: &str) -> Option<Vec<u8>> {
        let name = name.to_ascii_lowercase();
        if name.starts_with(':') || (name == "host" && map == Map::Headers(Way::Request)) {
            return self.special(map, &name).map(String::into_bytes);
        }
        let mut values = self.fields(map)?.get_all(&name).iter();
        let mut all = shown(values.next()?);
        for value in values {
            all.extend(b", ");
            all.extend(shown(value));
        }
        Some(all)
    }

    fn special(&self, map: Map, name: &str) -> Option<String> {
        match (map, name) {
            (Map::Headers(Way::Request), _) => {
                let head = self.request.as_ref()?;
                match name {
                    ":method" => Some(head.method.to_string()),
                    ":scheme" => head.uri.scheme_str().map(str::to_owned),
                    ":authority" | "host" => head.uri.authority().map(ToString::to_string),
                    ":path" => head.uri.path_and_query().map(ToString::to_string),
                    _ => None,
                }
            }
            (Map::Headers(Way::Response), ":status") => {
                Some(self.response.as_ref()?.status.as_str().to_owned())
            }
            _ => None,
        }
    }

    /// Puts a value into a field, in place of all there are or beside them.
    pub(crate) fn put(
        &mut self,
        map: Map,
        name: &str,
        value: Vec<u8>,
        beside: bool,
        limits: &Limits,
    ) -> Result<Changed, Status> {
        // What a visitor sent is not counted against the filter.
        let came = self.came.map_or(0, |(_, came)| came);
        let fields = self.fields_mut(map)?;
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            return self.put_special(map, name, &value);
        }
        let name = match own_field(name) {
            Ok(name) => name,
            Err(FieldRefused::Reserved) => return Ok(Changed::Kept),
            Err(FieldRefused::Invalid) => return Err(Status::BadArgument),
        };
        let grows = beside || !fields.contains_key(&name);
        let max = came.saturating_add(limits.fields);
        if value.len() > limits.field_bytes || (grows && fields.len() >= max) {
            return Err(Status::BadArgument);
        }
        let value = HeaderValue::from_maybe_shared(Bytes::from(value));
        let value = value.map_err(|_| Status::BadArgument)?;
        let put = match beside {
            true => fields.try_append(name, value).map(|_| ()),
            false => fields.try_insert(name, value).map(|_| ()),
        };
        put.map(|()| Changed::Yes).map_err(|_| Status::BadArgument)
    }

    fn put_special(&mut self, map: Map, name: &str, value: &[u8]) -> Result<Changed, Status> {
        let name = name.to_ascii_lowercase();
        let text = std::str::from_utf8(value).map_err(|_| Status::BadArgument)?;
        if self.special(map, &name).as_deref() == Some(text) {
            return Ok(Changed::Yes);
        }
        match (map, &*name) {
            (Map::Headers(Way::Request), ":path") => {
                let head = self.request.as_mut().ok_or(Status::BadArgument)?;
                let (path, query) = match text.split_once('?') {
                    Some((path, query)) => (path, Some(query)),
                    None => (text, None),
                };
                match retarget(head, path, query) {
                    true => Ok(Changed::Yes),
                    false => Err(Status::BadArgument),
                }
            }
            (Map::Headers(Way::Response), ":status") => {
                let head = self.response.as_mut().ok_or(Status::BadArgument)?;
                let status = text
                    .parse::<StatusCode>()
                    .map_err(|_| Status::BadArgument)?;
                // One that says how the message is framed, or that HTTP ends, is not a filter's to give or take.
                let framing = |status: StatusCode| {
                    status.is_informational()
                        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
                };
                if framing(status) || framing(head.status) {
                    return Err(Status::BadArgument);
                }
                head.status = status;
                Ok(Changed::Yes)
            }
            _ => Err(Status::BadArgument),
        }
    }

    pub(crate) fn remove(&mut self, map: Map, name: &str) -> Result<Changed, Status> {
        let fields = self.fields_mut(map)?;
        if name.starts_with(':') {
            return Ok(Changed::Kept);
        }
        match own_field(name) {
            Ok(name) => {
                fields.remove(name);
                Ok(Changed::Yes)
            }
            Err(FieldRefused::Reserved) => Ok(Changed::Kept),
            Err(FieldRefused::Invalid) => Err(Status::BadArgument),
        }
    }

    /// Puts these fields in the place of all that are a filter's to change; nothing is changed if one cannot be.
    pub(crate) fn put_all(
        &mut self,
        map: Map,
        pairs: Pairs,
        limits: &Limits,
    ) -> Result<Changed, Status> {
        let before = self.fields_mut(map)?.clone();
        let uri = self.request.as_ref().map(|head| head.uri.clone());
        let status = self.response.as_ref().map(|head| head.status);
        let done = self.put_each(map, pairs, &before, limits);
        if done.is_err() {
            *self.fields_mut(map)? = before;
            if let (Some(head), Some(uri)) = (&mut self.request, uri) {
                head.uri = uri;
            }
            if let (Some(head), Some(status)) = (&mut self.response, status) {
                head.status = status;
            }
        }
        done
    }

    fn put_each(
        &mut self,
        map: Map,
        pairs: Pairs,
        before: &HeaderMap,
        limits: &Limits,
    ) -> Result<Changed, Status> {
        let fields = self.fields_mut(map)?;
        for name in before.keys() {
            if own_field(name.as_str()).is_ok() {
                fields.remove(name);
            }
        }
        let mut changed = Changed::Yes;
        for (name, value) in pairs {
            // What was not text comes back as it was shown.
            let known = before.get_all(&name).iter();
            let known = known.map(HeaderValue::as_bytes);
            let mut known = known.filter(|octets| std::str::from_utf8(octets).is_err());
            let as_it_was =
                known.find(|octets| String::from_utf8_lossy(octets).as_bytes() == value);
            let put = as_it_was.unwrap_or(&value).to_vec();
            // What is the edge's is in what the filter has read, and comes back with it.
            if self.put(map, &name, put, true, limits)? == Changed::Kept
                && self.value(map, &name).as_deref() != Some(&*value)
            {
                changed = Changed::Kept;
            }
        }
        Ok(changed)
    }
}

/// A field's value as filters see it. Not all of them bear what is no text: SDKs panic, which would cost everybody on
/// their machine.
pub(crate) fn shown(value: &HeaderValue) -> Vec<u8> {
    String::from_utf8_lossy(value.as_bytes())
        .into_owned()
        .into_bytes()
}
