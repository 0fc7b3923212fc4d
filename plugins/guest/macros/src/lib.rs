//! `export!`: makes a component of a filter.

use proc_macro::{TokenStream, TokenTree};

/// Each phase: what the macro calls it, and what exports it.
const PHASES: [(&str, &str); 9] = [
    (
        "on_connect",
        "fn on_connect(exchange: &adit_guest::Exchange) -> Result<adit_guest::Admission, adit_guest::Failure> {
            adit_guest::OnConnect::on_connect(filter(), exchange)
        }",
    ),
    (
        "on_request",
        "fn on_request(head: &adit_guest::Request, exchange: &adit_guest::Exchange) -> Result<adit_guest::Verdict, adit_guest::Failure> {
            adit_guest::OnRequest::on_request(filter(), head, exchange)
        }",
    ),
    (
        "on_response",
        "fn on_response(head: &adit_guest::Response, exchange: &adit_guest::Exchange) -> Result<adit_guest::Revision, adit_guest::Failure> {
            adit_guest::OnResponse::on_response(filter(), head, exchange)
        }",
    ),
    (
        "on_request_body",
        "fn on_request_body(chunk: Vec<u8>, last: bool, trailers: Option<&adit_guest::Fields>, exchange: &adit_guest::Exchange)
            -> Result<(adit_guest::Passage, Option<Vec<u8>>), adit_guest::Failure> {
            REQUEST_BODY.with_borrow_mut(|state| {
                let state = state.get_or_insert_default();
                let piece = adit_guest::Piece::new(chunk, last, trailers);
                piece.passed(|piece| adit_guest::OnRequestBody::on_request_body(filter(), state, piece, exchange))
            })
        }",
    ),
    (
        "on_response_body",
        "fn on_response_body(chunk: Vec<u8>, last: bool, trailers: Option<&adit_guest::Fields>, exchange: &adit_guest::Exchange)
            -> Result<(adit_guest::Passage, Option<Vec<u8>>), adit_guest::Failure> {
            RESPONSE_BODY.with_borrow_mut(|state| {
                let state = state.get_or_insert_default();
                let piece = adit_guest::Piece::new(chunk, last, trailers);
                piece.passed(|piece| adit_guest::OnResponseBody::on_response_body(filter(), state, piece, exchange))
            })
        }",
    ),
    (
        "on_stream",
        "fn on_stream(direction: adit_guest::Direction, chunk: Vec<u8>, last: bool, exchange: &adit_guest::Exchange)
            -> Result<(adit_guest::Passage, Option<Vec<u8>>), adit_guest::Failure> {
            STREAM.with_borrow_mut(|state| {
                let state = state.get_or_insert_default();
                let piece = adit_guest::Piece::new(chunk, last, None);
                piece.passed(|piece| adit_guest::OnStream::on_stream(filter(), state, direction, piece, exchange))
            })
        }",
    ),
    (
        "on_datagram",
        "fn on_datagram(direction: adit_guest::Direction, datagram: Vec<u8>, exchange: &adit_guest::Exchange)
            -> Result<(adit_guest::Passage, Option<Vec<u8>>), adit_guest::Failure> {
            DATAGRAM.with_borrow_mut(|state| {
                let state = state.get_or_insert_default();
                let piece = adit_guest::Piece::new(datagram, false, None);
                piece.passed(|piece| adit_guest::OnDatagram::on_datagram(filter(), state, direction, piece, exchange))
            })
        }",
    ),
    (
        "on_rejudge",
        "fn on_rejudge(exchange: &adit_guest::Exchange) -> Result<adit_guest::Stay, adit_guest::Failure> {
            adit_guest::OnRejudge::on_rejudge(filter(), exchange)
        }",
    ),
    (
        "on_log",
        "fn on_log(exchange: &adit_guest::Exchange, outcome: exports::adit::filter::on_log::Outcome) {
            let exports::adit::filter::on_log::Outcome {
                request_id, method, path, started_ms, duration_us, status, bytes_up, bytes_down, decided_by, refused_for,
            } = outcome;
            let outcome = adit_guest::Outcome {
                request_id, method, path, started_ms, duration_us, status, bytes_up, bytes_down, decided_by, refused_for,
            };
            adit_guest::OnLog::on_log(filter(), exchange, &outcome);
        }",
    ),
];

/// Phases whose state lasts from one piece to the next: the cell, and the trait it is of.
const STATES: [(&str, &str, &str); 4] = [
    ("on_request_body", "REQUEST_BODY", "OnRequestBody"),
    ("on_response_body", "RESPONSE_BODY", "OnResponseBody"),
    ("on_stream", "STREAM", "OnStream"),
    ("on_datagram", "DATAGRAM", "OnDatagram"),
];

/// Makes a component of a filter: `adit_guest::export!(MyFilter: on_request, on_log);`.
///
/// The type implements `Plugin` and the trait of each phase that is named. The component takes part in these phases and
/// in no other.
#[proc_macro]
pub fn export(input: TokenStream) -> TokenStream {
    match expanded(input) {
        Ok(tokens) => tokens,
        Err(message) => format!("compile_error!({message:?});")
            .parse()
            .unwrap_or_default(),
    }
}

/// Makes a type one that a filter's table, or a part of it, can be read as. Names of keys are in kebab case, and keys that
/// are not known are refused.
#[proc_macro_attribute]
pub fn config(_: TokenStream, item: TokenStream) -> TokenStream {
    let before = r#"
        #[derive(adit_guest::serde::Deserialize, adit_guest::schemars::JsonSchema)]
        #[serde(crate = "adit_guest::serde", deny_unknown_fields, rename_all = "kebab-case")]
        #[schemars(crate = "adit_guest::schemars")]
    "#;
    let mut tokens: TokenStream = before.parse().unwrap_or_default();
    tokens.extend(item);
    tokens
}

/// The interface itself, and not where it lies: with one target folder for several projects, cargo takes the macro that
/// it has built for one of them for the others, too.
const WIT: [&str; 5] = [
    include_str!("../../../../wit/types.wit"),
    include_str!("../../../../wit/context.wit"),
    include_str!("../../../../wit/host.wit"),
    include_str!("../../../../wit/phases.wit"),
    include_str!("../../../../wit/world.wit"),
];

fn expanded(input: TokenStream) -> Result<TokenStream, String> {
    const LIKE: &str = "write it like `export!(MyFilter: on_request, on_log)`";
    let mut tokens = input.into_iter();
    let Some(TokenTree::Ident(name)) = tokens.next() else {
        return Err(format!("the filter's type is missing, {LIKE}"));
    };
    match tokens.next() {
        Some(TokenTree::Punct(colon)) if colon.as_char() == ':' => {}
        _ => return Err(format!("the phases are missing, {LIKE}")),
    }
    let mut phases = Vec::new();
    for token in tokens {
        match token {
            TokenTree::Ident(phase) => phases.push(phase.to_string()),
            TokenTree::Punct(comma) if comma.as_char() == ',' => {}
            other => return Err(format!("`{other}` is not a phase, {LIKE}")),
        }
    }
    if phases.is_empty() {
        return Err(format!("a filter takes part in one phase at least, {LIKE}"));
    }
    let mut world =
        String::from("package plugin:filter; world phases { include adit:filter/base@0.1.0;");
    let (mut states, mut guests) = (String::new(), String::new());
    for phase in &phases {
        let Some((_, method)) = PHASES.iter().find(|(name, _)| name == phase) else {
            let known: Vec<&str> = PHASES.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "`{phase}` is not a phase, use some of {}",
                known.join(", ")
            ));
        };
        let interface = phase.replace('_', "-");
        world.push_str(&format!(" export adit:filter/{interface}@0.1.0;"));
        guests.push_str(&format!(
            "impl exports::adit::filter::{phase}::Guest for Exported {{ {method} }}\n"
        ));
        if let Some((_, cell, of)) = STATES.iter().find(|(name, _, _)| name == phase) {
            states.push_str(&format!(
                "static {cell}: std::cell::RefCell<Option<<super::{name} as adit_guest::{of}>::State>> = const {{ std::cell::RefCell::new(None) }};\n"
            ));
        }
    }
    world.push_str(" } package adit:filter@0.1.0 {");
    for file in WIT {
        world.push_str(&file.replacen("package adit:filter@0.1.0;", "", 1));
    }
    world.push('}');
    let text = format!(
        r#"
        #[doc(hidden)]
        #[allow(warnings, reason = "generated from the WIT, which has the documentation")]
        mod __adit {{
            adit_guest::wit_bindgen::generate!({{
                inline: {world:?},
                world: "plugin:filter/phases",
                runtime_path: "adit_guest::wit_bindgen::rt",
                with: {{
                    "adit:filter/types@0.1.0": adit_guest::bindings::adit::filter::types,
                    "adit:filter/context@0.1.0": adit_guest::bindings::adit::filter::context,
                    "adit:filter/log@0.1.0": adit_guest::bindings::adit::filter::log,
                    "adit:filter/clock@0.1.0": adit_guest::bindings::adit::filter::clock,
                    "adit:filter/random@0.1.0": adit_guest::bindings::adit::filter::random,
                    "adit:filter/store@0.1.0": adit_guest::bindings::adit::filter::store,
                    "adit:filter/metrics@0.1.0": adit_guest::bindings::adit::filter::metrics,
                    "adit:filter/http-client@0.1.0": adit_guest::bindings::adit::filter::http_client,
                }},
            }});
            struct Exported;
            static FILTER: std::sync::OnceLock<super::{name}> = std::sync::OnceLock::new();
            fn filter() -> &'static super::{name} {{
                FILTER.get().expect("the host configures an instance before it asks it")
            }}
            std::thread_local! {{ {states} static __NONE: () = const {{ () }}; }}
            impl exports::adit::filter::plugin::Guest for Exported {{
                fn schema() -> String {{
                    adit_guest::schema::<super::{name}>()
                }}
                fn configure(config: String) -> Result<(), exports::adit::filter::plugin::ConfigError> {{
                    let wrong = |error: adit_guest::ConfigError| exports::adit::filter::plugin::ConfigError {{
                        key: error.key,
                        message: error.message,
                    }};
                    let _first = FILTER.set(adit_guest::configured::<super::{name}>(&config).map_err(wrong)?);
                    Ok(())
                }}
            }}
            {guests}
            export!(Exported);
        }}
        "#
    );
    text.parse()
        .map_err(|error| format!("the macro does not expand: {error}"))
}
