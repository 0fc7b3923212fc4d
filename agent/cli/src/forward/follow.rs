//! Follows a client and its tunnel, and shows how they are doing.

use std::sync::Arc;

use adit_agent::{Client, Error, Status, Tunnel, TunnelStatus};
use tokio::sync::watch;

use super::output::{Printer, Shown};
use crate::lines::tell;

pub(super) struct Follow {
    client: watch::Receiver<Status>,
    tunnel: watch::Receiver<TunnelStatus>,
    forwarded: String,
    printer: Arc<Printer>,
}

impl Follow {
    pub(super) fn new(
        client: &Client,
        tunnel: &Tunnel,
        forwarded: &str,
        printer: Arc<Printer>,
    ) -> Self {
        Self {
            client: client.status(),
            tunnel: tunnel.status(),
            forwarded: forwarded.to_owned(),
            printer,
        }
    }

    /// Shows every change until nothing will change any more; returns why.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        // The first attempt may be over before anybody looks.
        let mut last = Shown::new("connecting");
        self.printer.status(&last);
        let mut was_online = false;
        loop {
            let client = self.client.borrow_and_update().clone();
            let tunnel = self.tunnel.borrow_and_update().clone();
            let shown = show(&client, &tunnel, was_online, &self.forwarded);
            was_online |= client.is_online();
            if last != shown {
                self.printer.status(&shown);
                explain(&client, &tunnel);
                last = shown;
            }
            if let Some(verdict) = judge(&client, &tunnel) {
                return verdict;
            }
            tokio::select! {
                changed = self.client.changed() => changed?,
                changed = self.tunnel.changed() => changed?,
            }
        }
    }
}

fn show(client: &Status, tunnel: &TunnelStatus, was_online: bool, forwarded: &str) -> Shown {
    match (client, tunnel) {
        (Status::Online { server, .. }, TunnelStatus::Online(info)) => {
            let mut shown = Shown::new("online").with_server(server);
            shown.tunnel_id = Some(info.id().to_owned());
            shown.forwarding = info.forwarding();
            shown.forwarded = Some(forwarded.to_owned());
            shown
        }
        (
            Status::Online { server, .. },
            TunnelStatus::Rejected { reason, .. } | TunnelStatus::Failed(reason),
        ) => Shown::new(format!("tunnel creation failed ({reason})")).with_server(server),
        (Status::Online { server, .. }, _) => Shown::new("connected").with_server(server),
        (Status::Connecting, _) => Shown::new("connecting"),
        (Status::Disconnected { .. }, _) if was_online => Shown::new("disconnected"),
        (Status::Disconnected { reason, .. } | Status::Failed(reason), _) => {
            Shown::new(format!("connection failed ({reason})"))
        }
        _ => Shown::new("disconnected"),
    }
}

/// Says what happens next.
fn explain(client: &Status, tunnel: &TunnelStatus) {
    match (client, tunnel) {
        (Status::Disconnected { reason, retry_in }, _) => {
            tell(&format!("{reason}; trying again in {retry_in:.1?}"));
        }
        (Status::Online { .. }, TunnelStatus::Rejected { reason, retry_in }) => {
            tell(&format!("{reason}; asking again in {retry_in:.1?}"));
        }
        _ => {}
    }
}

fn judge(client: &Status, tunnel: &TunnelStatus) -> Option<anyhow::Result<()>> {
    match (client, tunnel) {
        (Status::Failed(error), _) | (_, TunnelStatus::Failed(error)) => {
            Some(Err(error.clone().into()))
        }
        (Status::Closed, _) => Some(Err(Error::Closed.into())),
        (_, TunnelStatus::Closed) => Some(Err(anyhow::anyhow!("the engine closed the tunnel"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_agent::{ErrorCode, ProtocolError, ServerDetails};
    use std::time::Duration;

    #[test]
    fn every_state_has_its_word() {
        let refusal = || Error::Engine(ProtocolError::new(ErrorCode(8000), "held"));
        let online = Status::Online {
            client_id: "c".to_owned(),
            server: ServerDetails::default(),
            timeout: None,
        };
        let lost = Status::Disconnected {
            reason: refusal(),
            retry_in: Duration::from_secs(1),
        };
        let rejected = TunnelStatus::Rejected {
            reason: refusal(),
            retry_in: Duration::from_secs(1),
        };
        let waiting = TunnelStatus::Waiting;
        for (client, tunnel, was_online, expected) in [
            (&Status::Connecting, &waiting, true, "connecting"),
            (&online, &waiting, true, "connected"),
            (&lost, &waiting, true, "disconnected"),
            (
                &lost,
                &waiting,
                false,
                "connection failed (engine error 8000: held)",
            ),
            (
                &online,
                &rejected,
                true,
                "tunnel creation failed (engine error 8000: held)",
            ),
        ] {
            assert_eq!(show(client, tunnel, was_online, "").status, expected);
            assert!(judge(client, tunnel).is_none());
        }
        assert!(judge(&Status::Failed(refusal()), &waiting).is_some_and(|end| end.is_err()));
        assert!(judge(&online, &TunnelStatus::Closed).is_some_and(|end| end.is_err()));
    }
}
