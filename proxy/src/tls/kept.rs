//! The configurations of one tunnel, made once.

use std::sync::Arc;

use adit_filters::{Chain, ClientHello};
use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

use super::{Answers, Tls};

/// What answers the handshakes of one tunnel, for as long as its chain and the engine's TLS stay.
/// Tickets given out under another chain are not taken.
#[derive(Debug, Default)]
pub(crate) struct Kept(ArcSwapOption<Made>);

#[derive(Debug)]
struct Made {
    chain: Arc<Chain>,
    tls: Arc<Tls>,
    answers: Answers,
}

impl Kept {
    /// The configuration for a visitor that said `hello`.
    ///
    /// # Errors
    /// If the library makes none of what the filters demand.
    pub(crate) fn config(
        &self,
        chain: &Arc<Chain>,
        tls: &Arc<Tls>,
        hello: &ClientHello,
    ) -> Result<Arc<ServerConfig>, rustls::Error> {
        let Some(demand) = chain.handshake() else {
            return Ok(tls.visitors());
        };
        let kept = self.0.load();
        if let Some(made) = kept.as_ref()
            && Arc::ptr_eq(&made.chain, chain)
            && Arc::ptr_eq(&made.tls, tls)
        {
            return Ok(made.answers.to(hello));
        }
        let answers = tls.answering(demand)?;
        let config = answers.to(hello);
        self.0.store(Some(Arc::new(Made {
            chain: Arc::clone(chain),
            tls: Arc::clone(tls),
            answers,
        })));
        Ok(config)
    }

    /// Lets go of what was made for a chain that is no longer in force.
    pub(crate) fn clear(&self) {
        self.0.store(None);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::{Handshake, Hooks, Placed, TlsVersion};

    use super::*;
    use crate::tls::tests::write;

    fn chain(demand: Option<Handshake>) -> Arc<Chain> {
        let hooks = demand.map_or_else(Hooks::new, |demand| Hooks::new().handshake(demand));
        Arc::new(Chain::compile(vec![Placed::new("p", hooks)]).unwrap())
    }

    #[test]
    fn a_configuration_is_made_once_for_a_chain_and_a_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = write(folder.path(), &["edge.example.com"]);
        let tls = Arc::new(Tls::new(&files).unwrap());
        let kept = Kept::default();
        let hello = ClientHello::default();
        let config = |chain, tls| kept.config(chain, tls, &hello).unwrap();
        let nothing = chain(None);
        assert!(Arc::ptr_eq(&config(&nothing, &tls), &tls.visitors()));
        let strict = Handshake::new().with_min_version(TlsVersion::Tls13);
        let (one, other) = (chain(Some(strict.clone())), chain(Some(strict)));
        let first = config(&one, &tls);
        assert!(Arc::ptr_eq(&first, &config(&one, &tls)));
        // What the same demand of another chain comes to shares no tickets with it.
        let second = config(&other, &tls);
        assert!(!Arc::ptr_eq(&first.ticketer, &second.ticketer));
        let renewed = Arc::new(Tls::new(&files).unwrap());
        assert!(!Arc::ptr_eq(&second, &config(&other, &renewed)));
    }
}
