//! A filter for HTTP that does what the path says.

use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    configuration: String,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let bytes = self.get_plugin_configuration().unwrap_or_default();
        self.configuration = String::from_utf8(bytes).unwrap();
        self.configuration != "refuse this"
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Door {
            configuration: self.configuration.clone(),
            path: String::new(),
            pieces: String::new(),
            asked: 0,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Door {
    configuration: String,
    path: String,
    /// What it was told of a request's pieces.
    pieces: String,
    /// How often it has asked beside a body.
    asked: u32,
}

/// Goes down until there is no stack left, and needs nothing of the stack that lies in memory.
#[inline(never)]
fn deep(level: u64) -> u64 {
    match level {
        u64::MAX => 1,
        _ => deep(level + 1).rotate_left(7).wrapping_mul(level | 1),
    }
}

impl Door {
    fn property(&self, path: &str) -> String {
        let parts = path.split('.').collect();
        match self.get_property(parts) {
            Some(value) => String::from_utf8_lossy(&value).into_owned(),
            None => "none".to_owned(),
        }
    }

    fn properties(&self) -> String {
        let mut text = String::new();
        for path in [
            "source.address",
            "request.path",
            "request.url_path",
            "request.query",
            "request.host",
            "request.method",
            "request.scheme",
            "request.headers.x-mine",
            "request.protocol",
            "connection.requested_server_name",
            "connection.tls_version",
            "plugin_name",
            "adit.tunnel.project",
            "xds.cluster_name",
        ] {
            text += &format!("{path}={}\n", self.property(path));
        }
        self.set_property(vec!["mine"], Some(b"kept"));
        text + &format!("mine={}\n", self.property("mine"))
    }
}

/// What takes longer than anybody waits.
fn forever() -> u64 {
    let mut count: u64 = 0;
    loop {
        count = std::hint::black_box(count).wrapping_add(1);
    }
}

impl Context for Door {
    fn on_http_call_response(&mut self, _: u32, fields: usize, bytes: usize, _: usize) {
        let status = self.get_http_call_response_header(":status");
        let body = self
            .get_http_call_response_body(0, bytes)
            .unwrap_or_default();
        if self.path == "/body-ask" {
            if self.asked < 2 {
                self.asked += 1;
                self.ask();
            }
            return;
        }
        match (fields, status.as_deref(), self.path.as_str()) {
            (0, _, _) => self.send_http_response(504, vec![], Some(b"no answer")),
            (_, Some("200"), "/ask-late") => {
                let text = String::from_utf8(body).unwrap();
                self.add_http_response_header("x-authz", &text);
                self.resume_http_response();
            }
            (_, Some("200"), _) => {
                let text = String::from_utf8(body).unwrap();
                self.set_http_request_header("x-authz", Some(&text));
                self.resume_http_request();
            }
            _ => self.send_http_response(403, vec![("x-why", "asked")], None),
        }
    }
}

impl Door {
    fn ask(&self) -> Action {
        let called = self.dispatch_http_call(
            "authz",
            vec![
                (":method", "GET"),
                (":path", "/may"),
                (":authority", "authz.test"),
            ],
            None,
            vec![],
            Duration::from_secs(3),
        );
        match called {
            Ok(_) => Action::Pause,
            Err(status) => {
                let text = format!("{status:?}");
                self.send_http_response(500, vec![("x-why", &text)], None);
                Action::Pause
            }
        }
    }
}

impl HttpContext for Door {
    fn on_http_request_headers(&mut self, count: usize, end: bool) -> Action {
        self.path = self.get_http_request_header(":path").unwrap();
        match self.path.as_str() {
            "/seen" => {
                let all = self.get_http_request_headers();
                assert_eq!(all.len(), count);
                let method = self.get_http_request_header(":method").unwrap();
                let host = self.get_http_request_header("host").unwrap();
                self.set_http_request_header("x-seen", Some(&format!("{method} {host} {end}")));
                self.add_http_request_header("x-many", "2");
                self.set_http_request_header("x-gone", None);
                self.set_http_request_header("x-forwarded-for", Some("1.2.3.4"));
                self.set_http_request_header(":path", Some("/elsewhere?a=b"));
                Action::Continue
            }
            "/rewrite" => {
                let all = self.get_http_request_headers();
                let all = all
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()));
                self.set_http_request_headers(all.collect());
                self.add_http_request_header("x-more", "1");
                Action::Continue
            }
            "/reply" => {
                let fields = vec![("x-from", "door"), ("content-length", "9999")];
                self.send_http_response(418, fields, Some(b"short and stout"));
                Action::Pause
            }
            "/properties" => {
                let text = self.properties();
                self.send_http_response(200, vec![], Some(text.as_bytes()));
                Action::Pause
            }
            "/ask" => self.ask(),
            "/panic" => panic!("as it was told"),
            "/loop" => {
                let count = forever();
                log::info!("{count}");
                Action::Continue
            }
            "/pause" => Action::Pause,
            "/deep" => {
                let far = deep(count as u64);
                log::info!("{far}");
                Action::Continue
            }
            "/flood" => {
                // Cheap to ask for.
                let body = vec![0; 256 << 10];
                let fields = vec![(":method", "PUT"), (":path", "/"), (":authority", "nobody")];
                let wait = Duration::from_secs(1);
                loop {
                    let called = self.dispatch_http_call(
                        "nobody",
                        fields.clone(),
                        Some(&body),
                        vec![],
                        wait,
                    );
                    assert!(called.is_err());
                }
            }
            "/pieces" => {
                self.pieces = format!("head {end}");
                Action::Continue
            }
            _ => Action::Continue,
        }
    }

    fn on_http_request_body(&mut self, bytes: usize, end: bool) -> Action {
        if self.path == "/body-ask" && !end && self.asked == 0 {
            self.asked = 1;
            return self.ask();
        }
        if self.path == "/pieces" {
            self.pieces += &format!(", {bytes} {end}");
            let said = if end { &self.pieces } else { "" };
            self.set_http_request_body(0, bytes, said.as_bytes());
        }
        if self.path == "/up" {
            if let Some(body) = self.get_http_request_body(0, bytes) {
                let length = body.len();
                self.set_http_request_body(0, length, &body.to_ascii_uppercase());
            }
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_response_header("content-length", None);
        self.set_http_response_header("x-configuration", Some(&self.configuration));
        match self.path.as_str() {
            "/ask-late" => self.ask(),
            "/teapot" => {
                self.set_http_response_header(":status", Some("418"));
                Action::Continue
            }
            "/instead" => {
                self.send_http_response(503, vec![], Some(b"another one"));
                Action::Pause
            }
            _ => Action::Continue,
        }
    }

    fn on_http_response_body(&mut self, bytes: usize, end: bool) -> Action {
        match self.path.as_str() {
            "/body" if !end => Action::Pause,
            "/body-pause" => Action::Pause,
            "/body" => {
                let body = self.get_http_response_body(0, bytes).unwrap_or_default();
                let text = String::from_utf8(body).unwrap();
                let text = format!("{} of {}", text.to_uppercase(), text.len());
                self.set_http_response_body(0, bytes, text.as_bytes());
                Action::Continue
            }
            "/body-panic" => panic!("in a body"),
            _ => Action::Continue,
        }
    }

    fn on_log(&mut self) {
        let code = self
            .get_property(vec!["response", "code"])
            .unwrap_or_default();
        let code = code.try_into().map(i64::from_le_bytes).unwrap_or_default();
        log::info!("{} was answered {code}", self.path);
    }
}
