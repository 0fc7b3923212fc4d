//! A browser as far as signing in needs one: it keeps cookies by host, and follows where it is sent.

use adit_plugins::identity::credentials::sha256;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::engine::TestEngine;

/// Most redirections in a row.
const REDIRECTS_MAX: usize = 10;

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where it came from in the end.
    pub url: String,
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first field of this name, which is lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields.find_map(|(found, value)| (found == name).then_some(value.as_str()))
    }

    pub fn location(&self) -> &str {
        self.field("location")
            .unwrap_or_else(|| panic!("no redirection: {self:#?}"))
    }

    /// The value of the page's first hidden input of this name.
    pub fn hidden(&self, name: &str) -> String {
        let begin = format!("name=\"{name}\" value=\"");
        let (_, rest) = self
            .body
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no `{name}`: {self:#?}"));
        rest.split('"').next().unwrap().to_owned()
    }

    /// Where the page goes on to by itself.
    pub fn refresh(&self) -> Option<String> {
        let (_, rest) = self.body.split_once("content=\"0;url=")?;
        Some(rest.split('"').next()?.replace("&amp;", "&"))
    }

    fn set_cookies(&self) -> impl Iterator<Item = &str> {
        let fields = self.fields.iter();
        fields.filter_map(|(name, value)| (name == "set-cookie").then_some(value.as_str()))
    }
}

/// One cookie of one host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cookie {
    pub host: String,
    pub name: String,
    pub value: String,
}

/// A browser with its cookies.
pub struct Browser<'e> {
    engine: &'e TestEngine,
    pub jar: Vec<Cookie>,
}

impl<'e> Browser<'e> {
    pub fn new(engine: &'e TestEngine) -> Self {
        Self {
            engine,
            jar: Vec::new(),
        }
    }

    /// The address of a path on a host of the engine.
    pub fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.engine.port())
    }

    /// One request, and no other, with further fields.
    pub async fn ask(
        &mut self,
        method: &str,
        url: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let rest = url
            .strip_prefix("https://")
            .unwrap_or_else(|| panic!("not an address of the engine: {url}"));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = authority.split(':').next().unwrap();
        let mut text = format!(
            "{method} /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\nContent-Length: {}\r\n",
            body.len()
        );
        let cookies: Vec<String> = self
            .jar
            .iter()
            .filter(|cookie| cookie.host == host)
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        if !cookies.is_empty() {
            text.push_str(&format!("Cookie: {}\r\n", cookies.join("; ")));
        }
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = self.engine.visit(host, "http/1.1").await;
        stream
            .write_all(format!("{text}\r\n{body}").as_bytes())
            .await
            .unwrap();
        let mut raw = Vec::new();
        let _close_notify_or_not = stream.read_to_end(&mut raw).await;
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let (head, body) = raw
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer to {method} {url}: {raw}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let answer = Answer {
            url: url.to_owned(),
            status: status.parse().unwrap(),
            fields: lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect(),
            body: body.to_owned(),
        };
        self.keep(host, &answer);
        answer
    }

    /// Opens a page, and whatever page it leads to.
    pub async fn open(&mut self, url: &str) -> Answer {
        let answer = self.navigate(url).await;
        self.follow(answer).await
    }

    /// Opens a page and follows nothing.
    pub async fn navigate(&mut self, url: &str) -> Answer {
        let fields = [
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Dest", "document"),
            ("Accept", "text/html,*/*;q=0.8"),
        ];
        self.ask("GET", url, &fields, "").await
    }

    /// Sends a form from a page of the same host and follows where it leads.
    pub async fn send(&mut self, url: &str, form: &[(&str, &str)]) -> Answer {
        let answer = self.post(url, form).await;
        self.follow(answer).await
    }

    /// Sends a form and follows nothing.
    pub async fn post(&mut self, url: &str, form: &[(&str, &str)]) -> Answer {
        let body: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let fields = [
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Site", "same-origin"),
            ("Origin", &origin),
        ];
        self.ask("POST", url, &fields, &body.join("&")).await
    }

    /// Signs in with a local account, from the page `answer` that asks for it.
    pub async fn sign_in(&mut self, page: &Answer, name: &str, password: &str) -> Answer {
        let url = page
            .url
            .splitn(4, '/')
            .take(3)
            .collect::<Vec<_>>()
            .join("/");
        let (request, csrf) = (page.hidden("request"), page.hidden("csrf"));
        let form = [
            ("request", &*request),
            ("csrf", &*csrf),
            ("name", name),
            ("password", password),
        ];
        self.send(&format!("{url}/rstream/auth/password"), &form)
            .await
    }

    /// The value of a host's cookie.
    pub fn cookie(&self, host: &str, name: &str) -> Option<&str> {
        let mut jar = self.jar.iter();
        jar.find_map(|cookie| {
            (cookie.host == host && cookie.name == name).then_some(cookie.value.as_str())
        })
    }

    /// The field with the cookies that go to a host.
    pub fn cookies(&self, host: &str) -> String {
        let of_host = self.jar.iter().filter(|cookie| cookie.host == host);
        let pairs: Vec<String> = of_host
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        format!("Cookie: {}\r\n", pairs.join("; "))
    }

    async fn follow(&mut self, mut answer: Answer) -> Answer {
        for _ in 0..REDIRECTS_MAX {
            let next = match answer.status {
                302 | 303 => answer.location().to_owned(),
                _ => match answer.refresh() {
                    Some(next) => next,
                    None => return answer,
                },
            };
            let host = next.split('/').nth(2).unwrap_or_default();
            if !host.contains(crate::engine::ENGINE_HOST) {
                return answer;
            }
            answer = self.navigate(&next).await;
        }
        panic!("sent around in circles: {answer:#?}");
    }

    fn keep(&mut self, host: &str, answer: &Answer) {
        for set in answer.set_cookies() {
            let pair = set.split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.jar
                .retain(|cookie| cookie.host != host || cookie.name != name);
            if !set.contains("Max-Age=0;") {
                self.jar.push(Cookie {
                    host: host.to_owned(),
                    name: name.to_owned(),
                    value: value.to_owned(),
                });
            }
        }
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// What a browser's script does: the callback's address with its proof.
pub fn solved(page: &str) -> String {
    let data = |name: &str| {
        let begin = format!("data-{name}=\"");
        let (_, rest) = page
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no {name}: {page}"));
        rest.split('"').next().unwrap().to_owned()
    };
    let bits: u32 = data("bits").parse().unwrap();
    let numbers: Vec<String> = (0..data("pieces").parse::<u32>().unwrap())
        .map(|piece| {
            let begins = |number: &u64| {
                let text = format!("{}:{piece}:{number}", data("id"));
                sha256_begins(text.as_bytes(), bits)
            };
            (0u64..).find(begins).unwrap().to_string()
        })
        .collect();
    format!(
        "{}?request={}&proof={}",
        data("back"),
        data("request"),
        numbers.join(".")
    )
}

/// Whether the hash of a text begins with so many zero bits.
fn sha256_begins(text: &[u8], zeros: u32) -> bool {
    let hash = sha256(text);
    let first: [u8; 4] = hash[..4].try_into().unwrap();
    u32::from_be_bytes(first).leading_zeros() >= zeros
}
