//! One connection, to standard input and output or to a command.

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::command::CommandLine;
use super::endpoint::{Connection, Dialer, Endpoint};
use crate::process::Stop;

/// Connects and passes bytes until the peer is done, or the command is.
pub(super) async fn run(
    dialer: &Dialer,
    to: &Endpoint,
    command: Option<CommandLine>,
    input: bool,
) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let talk = async {
        let connection = dialer.dial(to).await?;
        match command {
            Some(command) => with_command(connection, &command).await,
            None if input => with_terminal(connection, tokio::io::stdin()).await,
            None => with_terminal(connection, Silent).await,
        }
    };
    tokio::select! {
        outcome = talk => outcome,
        () = stop.wanted() => Ok(()),
    }
}

async fn with_command(mut connection: Connection, command: &CommandLine) -> anyhow::Result<()> {
    let mut running = command.start()?;
    adit_transport::relay(&mut connection, &mut running).await?;
    Ok(())
}

/// Input to the peer, then its end; the peer's output to ours. The peer's end is the end, because
/// nobody will read what is typed after it.
async fn with_terminal(
    connection: Connection,
    mut input: impl AsyncRead + Unpin,
) -> anyhow::Result<()> {
    let (mut from_peer, mut to_peer) = tokio::io::split(connection);
    let send = async {
        let sent = tokio::io::copy(&mut input, &mut to_peer).await;
        if sent.is_ok() {
            // A peer that has ended already needs no word of ours.
            let _ = to_peer.shutdown().await;
        }
        // What the peer has still to say decides how this ends, even if it takes nothing more.
        std::future::pending::<()>().await;
    };
    let mut output = tokio::io::stdout();
    let receive = async {
        copy_out(&mut from_peer, &mut output).await?;
        output.flush().await.context("cannot write the output")
    };
    tokio::select! {
        () = send => Ok(()),
        outcome = receive => {
            outcome?;
            // Everything has come; the peer should not take our end for a failure.
            let _ = from_peer.unsplit(to_peer).shutdown().await;
            Ok(())
        }
    }
}

async fn copy_out(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    use tokio::io::AsyncReadExt;
    let mut buffer = vec![0; adit_transport::relay::BUFFER_LEN];
    loop {
        let len = from.read(&mut buffer).await.map_err(broke_off)?;
        let Some(bytes) = buffer.get(..len).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        to.write_all(bytes)
            .await
            .context("cannot write the output")?;
        to.flush().await.context("cannot write the output")?;
    }
}

/// A reset, by whichever of its names, needs no further explanation.
fn broke_off(error: std::io::Error) -> anyhow::Error {
    use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
    match error.kind() {
        ConnectionReset | UnexpectedEof => anyhow::anyhow!("the peer broke the connection off"),
        _ => anyhow::Error::new(error).context("the connection broke off"),
    }
}

/// Input that never comes and never ends.
struct Silent;

impl AsyncRead for Silent {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Pending
    }
}
