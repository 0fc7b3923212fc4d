//! Commands whose input and output are connected.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use adit_transport::Abort;
use anyhow::{Context as _, bail};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A command, ready to be run any number of times.
#[derive(Clone, Debug)]
pub(super) struct CommandLine {
    program: String,
    arguments: Vec<String>,
}

impl CommandLine {
    /// Splits `line` into words as a shell does, without any other of its powers.
    pub(super) fn split(line: &str) -> anyhow::Result<Self> {
        let words = shlex::split(line)
            .with_context(|| format!("`{line}` has an open quote or ends in a backslash"))?;
        let mut words = words.into_iter();
        let Some(program) = words.next().filter(|program| !program.is_empty()) else {
            bail!("the command is empty");
        };
        Ok(Self {
            program,
            arguments: words.collect(),
        })
    }

    /// Runs `line` through the system's shell.
    pub(super) fn shell(line: &str) -> anyhow::Result<Self> {
        if line.trim().is_empty() {
            bail!("the command is empty");
        }
        Ok(Self {
            program: "/bin/sh".to_owned(),
            arguments: vec!["-c".to_owned(), line.to_owned()],
        })
    }

    /// Starts the command. It is killed when the result is dropped; its standard error is ours.
    pub(super) fn start(&self) -> anyhow::Result<Running> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run `{}`", self.program))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("`{}` has no input or no output", self.program);
        };
        Ok(Running {
            _child: child,
            input: Some(input),
            output,
        })
    }
}

/// A running command as a stream: what is written is its input, what is read its output.
#[derive(Debug)]
pub(super) struct Running {
    _child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

/// A command has no reset: it is killed with the drop, and its pipes tell of its end.
impl Abort for Running {
    fn abort_on_drop(&self) {}
}

impl AsyncRead for Running {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buf)
    }
}

impl AsyncWrite for Running {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// A pipe ends when it is closed.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        Poll::Ready(Ok(()))
    }
}
