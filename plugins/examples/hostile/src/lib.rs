//! Does what no filter should, for tests of the host.

use std::hint::black_box;
use std::time::Duration;

use adit_guest::prelude::*;

/// What to do.
#[config]
pub struct Config {
    /// The misdeed.
    what: What,
    /// The phase it is done in.
    #[serde(default)]
    at: At,
    /// Where to, for those that ask others.
    #[serde(default)]
    url: String,
}

#[config]
#[derive(Clone, Copy, PartialEq)]
enum What {
    Nothing,
    Loop,
    Recursion,
    Memory,
    Fields,
    Lines,
    LongLine,
    Panic,
    Calls,
    Read,
    Hang,
    Sleep,
    Variables,
    Reply,
    Identity,
    Reject,
    Files,
}

#[config]
#[derive(Clone, Copy, Default, PartialEq)]
enum At {
    Configure,
    Connect,
    #[default]
    Request,
    Response,
    RequestBody,
    ResponseBody,
    Stream,
    Rejudge,
    Log,
}

struct Hostile(Config);

fn deeper(depth: u64) -> u64 {
    match black_box(depth) {
        u64::MAX => 0,
        depth => black_box(deeper(depth + 1)) + 1,
    }
}

impl Config {
    fn act(&self, at: At, exchange: Option<&Exchange>, fields: Option<&Fields>) {
        if self.at != at {
            return;
        }
        match self.what {
            What::Nothing | What::Reply | What::Reject => {}
            What::Loop => loop {
                black_box(());
            },
            What::Recursion => {
                black_box(deeper(0));
            }
            What::Memory => {
                let mut all = Vec::new();
                loop {
                    all.push(black_box(vec![1u8; 1 << 20]));
                }
            }
            What::Fields => {
                for number in 0..1_000_000 {
                    if let Some(fields) = fields {
                        let _ = fields.append(&format!("x-{number}"), b"1");
                    }
                }
            }
            What::Lines => (0..500).for_each(|number| log::info(format!("line {number}"))),
            What::LongLine => log::info("long ".repeat(1 << 18)),
            What::Panic => panic!("as it was told"),
            What::Calls => loop {
                black_box(clock::now());
            },
            What::Read => loop {
                black_box(fields.map(|fields| fields.get("user-agent")));
            },
            What::Hang => {
                let ask = || {
                    http::get(&self.url)
                        .timeout(Duration::from_secs(3600))
                        .send()
                };
                while matches!(ask(), Err(http::FetchError::TimedOut)) {}
            }
            What::Sleep => std::thread::sleep(Duration::from_secs(3600)),
            What::Variables => {
                if let Some(exchange) = exchange {
                    (0..1_000_000).all(|number| exchange.keep(&number.to_string(), "much"));
                }
            }
            What::Identity => {
                let subject = "somebody else".to_owned();
                let identity = Identity {
                    subject,
                    name: None,
                    email: None,
                    token_id: None,
                };
                let said = exchange.map(|exchange| exchange.establish_identity(&identity));
                log::info(format!("{said:?}"));
            }
            What::Files => {
                let files = std::fs::read_dir("/").map(Iterator::count);
                let secrets = std::env::vars().count();
                let socket = std::net::TcpStream::connect("127.0.0.1:80").map(|_| ());
                log::info(format!("{files:?} {secrets} {socket:?}"));
            }
        }
    }
}

impl Plugin for Hostile {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        config.act(At::Configure, None, None);
        match config.what {
            What::Reject => Err(ConfigError::at("at", "as it was told")),
            _ => Ok(Self(config)),
        }
    }
}

impl OnConnect for Hostile {
    fn on_connect(&self, exchange: &Exchange) -> Result<Admission, Failure> {
        self.0.act(At::Connect, Some(exchange), None);
        Ok(Admission::Admit)
    }
}

impl OnRequest for Hostile {
    fn on_request(&self, request: &Request, exchange: &Exchange) -> Result<Verdict, Failure> {
        self.0
            .act(At::Request, Some(exchange), Some(&request.fields()));
        Ok(match self.0.what {
            What::Reply => Reply::new(200).body(vec![b'x'; 2 << 20]).into(),
            _ => Verdict::Continue,
        })
    }
}

impl OnResponse for Hostile {
    fn on_response(&self, response: &Response, exchange: &Exchange) -> Result<Revision, Failure> {
        self.0
            .act(At::Response, Some(exchange), Some(&response.fields()));
        Ok(Revision::Keep)
    }
}

impl OnRequestBody for Hostile {
    type State = ();

    fn on_request_body(
        &self,
        (): &mut (),
        piece: &mut Piece<'_>,
        exchange: &Exchange,
    ) -> Result<Passage, Failure> {
        self.0.act(At::RequestBody, Some(exchange), piece.trailers);
        Ok(Passage::Forward)
    }
}

impl OnResponseBody for Hostile {
    type State = ();

    fn on_response_body(
        &self,
        (): &mut (),
        piece: &mut Piece<'_>,
        exchange: &Exchange,
    ) -> Result<Passage, Failure> {
        self.0.act(At::ResponseBody, Some(exchange), piece.trailers);
        Ok(Passage::Forward)
    }
}

impl OnStream for Hostile {
    type State = ();

    fn on_stream(
        &self,
        (): &mut (),
        _: Direction,
        _: &mut Piece<'_>,
        exchange: &Exchange,
    ) -> Result<Passage, Failure> {
        self.0.act(At::Stream, Some(exchange), None);
        Ok(Passage::Forward)
    }
}

impl OnRejudge for Hostile {
    fn on_rejudge(&self, exchange: &Exchange) -> Result<Stay, Failure> {
        self.0.act(At::Rejudge, Some(exchange), None);
        Ok(Stay::Yes)
    }
}

impl OnLog for Hostile {
    fn on_log(&self, exchange: &Exchange, _: &Outcome) {
        self.0.act(At::Log, Some(exchange), None);
    }
}

adit_guest::export!(
    Hostile: on_connect, on_request, on_response, on_request_body, on_response_body, on_stream, on_rejudge, on_log
);
