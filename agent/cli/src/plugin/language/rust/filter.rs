//! Turns user agents away that its table names.

use adit_guest::prelude::*;

/// The filter's table in the engine's configuration.
#[config]
pub struct Config {
    /// Words in `User-Agent`, in lower case, that are not welcome.
    unwelcome: Vec<String>,
}

struct Filter(Config);

impl Plugin for Filter {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        match config.unwelcome.iter().position(String::is_empty) {
            Some(at) => Err(ConfigError::at(
                &format!("unwelcome.{at}"),
                "a word has letters",
            )),
            None => Ok(Self(config)),
        }
    }
}

impl OnRequest for Filter {
    fn on_request(&self, request: &Request, _: &Exchange) -> Result<Verdict, Failure> {
        let agent = request
            .field("user-agent")
            .unwrap_or_default()
            .to_lowercase();
        if let Some(word) = self.0.unwelcome.iter().find(|word| agent.contains(*word)) {
            // The visitor is told what every refusal tells; the operator's log has the rest.
            return Ok(Refusal::new(Reason::Policy)
                .because(format!("`{word}`"))
                .into());
        }
        request
            .set_field("x-agent-seen", "yes")
            .map_err(|_| "the field cannot be set")?;
        Ok(Verdict::Continue)
    }
}

adit_guest::export!(Filter: on_request);
