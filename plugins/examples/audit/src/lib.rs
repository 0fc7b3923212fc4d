//! Writes a line for each exchange that may have changed something, and counts the rest.
//!
//! ```toml
//! [plugin.audit]
//! component = "audit.wasm"
//! stage = "log"
//!
//! [policy.edge]
//! filters = [{ use = "audit" }]
//! ```

use adit_guest::prelude::*;

/// Nothing to set.
#[config]
pub struct Config {}

struct Audit;

impl Plugin for Audit {
    type Config = Config;

    fn new(Config {}: Config) -> Result<Self, ConfigError> {
        Ok(Self)
    }
}

impl OnLog for Audit {
    fn on_log(&self, exchange: &Exchange, outcome: &Outcome) {
        if matches!(&*outcome.method, "GET" | "HEAD" | "OPTIONS") {
            let _ = metrics::add("audit_reads_total", 1);
            return;
        }
        let who = exchange
            .identity()
            .map_or_else(|| "nobody".to_owned(), |identity| identity.subject);
        let Outcome {
            request_id,
            method,
            path,
            status,
            decided_by,
            ..
        } = outcome;
        let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let by = decided_by.as_deref().unwrap_or("the service");
        log::info(format!(
            "{request_id}: {who} from {} {method} {path}: {status} by {by}",
            exchange.client_address()
        ));
    }
}

adit_guest::export!(Audit: on_log);
