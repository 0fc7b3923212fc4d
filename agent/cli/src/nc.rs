//! `adit nc`: bytes between standard input and output, commands, TCP and private tunnels.

mod client;
mod command;
mod endpoint;
mod server;

use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use crate::connection::{self, ConnectionArgs};
use command::CommandLine;
use endpoint::{Endpoint, On};

/// Connections served at the same time in server mode, unless told otherwise.
const CONNECTIONS_MAX: usize = 64;

/// Connect to private tunnels and TCP services, or serve them
///
/// An endpoint is HOST:PORT (TCP) or rstrm://NAME (a private tunnel, by name or id).
#[derive(Debug, Args)]
#[command(after_help = examples())]
pub(crate) struct NcArgs {
    /// What to connect to: one endpoint, or a TCP host and port as two words.
    #[arg(value_name = "ENDPOINT")]
    target: Vec<String>,

    /// Serve: listen on HOST:PORT, or create a private tunnel. `rstrm://` alone makes up a name.
    #[arg(short = 'L', long, value_name = "ENDPOINT")]
    listen: Option<String>,

    /// Serve: pass each connection on to this endpoint.
    #[arg(short = 'R', long, value_name = "ENDPOINT")]
    remote: Option<String>,

    /// Run this command, words split as by a shell, and connect its input and output.
    #[arg(short = 'e', long, value_name = "COMMAND")]
    exec: Option<String>,

    /// The same through the system's shell.
    #[arg(short = 'c', long, value_name = "COMMAND", conflicts_with = "exec")]
    sh_exec: Option<String>,

    /// Pass standard input on (as is the rule).
    #[arg(short = 'i', overrides_with = "no_interactive")]
    interactive: bool,

    /// Do not read standard input.
    #[arg(short = 'I')]
    no_interactive: bool,

    /// Serve: this many connections at once; more are closed.
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_MAX)]
    max_connections: usize,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn examples() -> String {
    format!(
        "\
Examples:
  adit nc rstrm://home                            talk to the private tunnel `home`
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | adit nc localhost:8080
  ssh -o ProxyCommand='adit nc rstrm://%h' me@home
  adit nc -L rstrm://home -R localhost:22         serve SSH as `home`
  adit nc -L 127.0.0.1:5432 -R rstrm://db         a local port for the tunnel `db`
  adit nc -L rstrm://date -c date                 run a command for each connection

{}",
        connection::HELP
    )
}

/// What the flags ask for.
#[derive(Debug)]
enum Mode {
    Client {
        to: Endpoint,
        command: Option<CommandLine>,
        input: bool,
    },
    Server {
        on: On,
        to: Upstream,
    },
}

/// What connections are served from.
#[derive(Debug)]
enum Upstream {
    Command(CommandLine),
    Endpoint(Endpoint),
}

impl NcArgs {
    fn mode(&self) -> anyhow::Result<Mode> {
        let command = match (&self.exec, &self.sh_exec) {
            (Some(line), _) => Some(CommandLine::split(line)?),
            (None, Some(line)) => Some(CommandLine::shell(line)?),
            (None, None) => None,
        };
        if self.max_connections == 0 {
            bail!("--max-connections must be above 0");
        }
        let Some(listen) = &self.listen else {
            if self.remote.is_some() {
                bail!("-R needs -L");
            }
            let to = match self.target.as_slice() {
                [] => bail!("give an endpoint: host:port or rstrm://name"),
                [one] => one.parse()?,
                [host, port] if !host.contains("://") && !host.contains(':') => {
                    format!("{host}:{port}").parse()?
                }
                _ => bail!("give one endpoint, not {}", self.target.len()),
            };
            if to == Endpoint::AnyTunnel {
                bail!("`rstrm://` needs the name or id of a tunnel");
            }
            let input = !self.no_interactive;
            return Ok(Mode::Client { to, command, input });
        };
        if !self.target.is_empty() {
            bail!("with -L, say where connections go with -R, -e or -c");
        }
        let on = listen.parse().context("-L")?;
        let to = match (&self.remote, command) {
            (Some(_), Some(_)) => bail!("give one of -R, -e and -c"),
            (None, None) => bail!("-L needs one of -R, -e and -c"),
            (None, Some(command)) => Upstream::Command(command),
            (Some(remote), None) => match remote.parse().context("-R")? {
                Endpoint::AnyTunnel => bail!("-R needs the name or id of a tunnel"),
                remote => Upstream::Endpoint(remote),
            },
        };
        Ok(Mode::Server { on, to })
    }
}

/// Runs the command.
pub(crate) async fn run(args: NcArgs) -> anyhow::Result<()> {
    match args.mode()? {
        Mode::Client { to, command, input } => {
            let dialer = endpoint::Dialer::new(&to, &args.connection)?;
            client::run(&dialer, &to, command, input).await
        }
        Mode::Server { on, to } => {
            let upstream = match to {
                Upstream::Command(command) => server::Upstream::Command(command),
                Upstream::Endpoint(to) => {
                    let dialer = endpoint::Dialer::new(&to, &args.connection)?;
                    server::Upstream::Endpoint(dialer, to)
                }
            };
            let server = Arc::new(server::Server::new(upstream, args.max_connections));
            server.run(on, &args.connection).await
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn mode(words: &[&str]) -> anyhow::Result<Mode> {
        let words = ["adit", "nc"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            Command::Nc(args) => args.mode(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn client_mode_takes_one_endpoint() {
        for words in [
            &["a:1"][..],
            &["a", "1"],
            &["rstrm://x"],
            &["rstrm://x", "-e", "cat"],
            &["a:1", "-I"],
        ] {
            assert!(
                matches!(mode(words).unwrap(), Mode::Client { .. }),
                "{words:?}"
            );
        }
    }

    #[test]
    fn server_mode_takes_one_upstream() {
        for words in [
            &["-L", "rstrm://a", "-R", "b:1"][..],
            &["-L", "rstrm://", "-e", "cat -u"],
            &["-L", "127.0.0.1:0", "-R", "rstrm://b"],
            &["-L", "rstrm://a", "-c", "date; id"],
        ] {
            assert!(
                matches!(mode(words).unwrap(), Mode::Server { .. }),
                "{words:?}"
            );
        }
    }

    #[test]
    fn other_combinations_are_refused() {
        // agent-cli §10 C27
        for words in [
            &[][..],
            &["-L", "rstrm://a"],
            &["a:1", "b:2"],
            &["rstrm://a", "rstrm://b"],
            &["-R", "a:1"],
            &["a:1", "-R", "b:1"],
            &["-L", "rstrm://a", "-R", "b:1", "-e", "cat"],
            &["-L", "rstrm://a", "-R", "b:1", "c:1"],
            &["-L", "rstrm://a", "-R", "rstrm://"],
            &["-L", "rstrm://a", "-e", ""],
            &["-L", "rstrm://a", "-e", "'open"],
            &["rstrm://"],
            &["udp://a:1"],
            &["-L", "udp://a:1", "-R", "rstrm://b"],
            &["-L", "rstrm://a", "-R", "udp://b:1"],
            &["a"],
            &["-L", "rstrm://a", "-e", "cat", "--max-connections", "0"],
        ] {
            assert!(mode(words).is_err(), "{words:?}");
        }
    }
}
