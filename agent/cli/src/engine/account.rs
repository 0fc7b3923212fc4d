//! `adit engine account`: local accounts for tunnels that ask users to sign in.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use adit_config::{Config, Secret};
use adit_plugins::identity::rstream_auth::{
    Hash, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, SALT_BYTES, is_name, not_a_name,
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use toml::Value;

use super::ConfigArgs;

/// Make local accounts, for tunnels that ask users to sign in
#[derive(Debug, Args)]
#[command(after_help = "\
The password is asked for, or is the first line of standard input. Accounts go to the file that
`login.accounts` of the configuration names, which a running engine reads again by itself; without
one they are printed.")]
pub(crate) struct AccountArgs {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Make an account
    Add(AddArgs),
    /// Give an account another password, which signs its user out everywhere
    Password(NamedArgs),
}

#[derive(Debug, Args)]
struct NamedArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// What its user types as name
    name: String,
}

#[derive(Debug, Args)]
struct AddArgs {
    #[command(flatten)]
    of: NamedArgs,
    /// Its user's name, for people
    #[arg(long, value_name = "NAME")]
    full_name: Option<String>,
    /// Its user's mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// A group its user is in; may be given more than once
    #[arg(long = "group", short, value_name = "GROUP")]
    groups: Vec<String>,
}

pub(super) fn run(args: &AccountArgs) -> anyhow::Result<()> {
    match &args.command {
        AccountCommand::Add(args) => add(args),
        AccountCommand::Password(args) => change(args),
    }
}

fn add(args: &AddArgs) -> anyhow::Result<()> {
    let AddArgs { of, .. } = args;
    if !is_name(&of.name) {
        bail!("{}", not_a_name(&of.name));
    }
    if let Some(email) = &args.email
        && !email.contains('@')
    {
        bail!("--email: `{email}` is not a mail address");
    }
    let config = of.config.load()?;
    let before = match accounts(&config) {
        Some(path) => read(path)?,
        None => String::new(),
    };
    if table(&before, &of.name)?.is_some() {
        bail!(
            "account `{}` is there already: `adit engine account password {0}` gives it another password",
            of.name
        );
    }
    let entry = entry(args, &hash()?);
    let Some(path) = accounts(&config) else {
        eprintln!("`login.accounts` names no file, write this to one and name it there:");
        print!("{entry}");
        return Ok(());
    };
    let gap = if before.is_empty() { "" } else { "\n" };
    let line_end = if before.is_empty() || before.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    write(path, &format!("{before}{line_end}{gap}{entry}"))?;
    println!("{}: account `{}` added", path.display(), of.name);
    Ok(())
}

fn change(args: &NamedArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let Some(path) = accounts(&config) else {
        bail!("`login.accounts` names no file, there are no accounts");
    };
    let before = read(path)?;
    let Some(old) = table(&before, &args.name)? else {
        bail!(
            "there is no account `{}` in {}: `adit engine account add {0}` makes it",
            args.name,
            path.display()
        );
    };
    let old = old.get("password").and_then(Value::as_str).unwrap_or("");
    // A hash has a salt of its own: it stands in the file once.
    if old.is_empty() || before.matches(old).count() != 1 {
        bail!(
            "{}: account `{}` has no password hash of its own, write `password = \"\"` anew by hand",
            path.display(),
            args.name
        );
    }
    write(path, &before.replace(old, hash()?.as_str()))?;
    println!(
        "{}: account `{}` has another password",
        path.display(),
        args.name
    );
    Ok(())
}

fn accounts(config: &Config) -> Option<&Path> {
    config.login.accounts.as_deref()
}

fn read(path: &Path) -> anyhow::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("`{}` cannot be read", path.display())),
    }
}

/// What is written of an account.
fn table(text: &str, name: &str) -> anyhow::Result<Option<toml::Table>> {
    let all: toml::Table = text.parse().context("the accounts cannot be read")?;
    let account = all.get("account").and_then(|accounts| accounts.get(name));
    Ok(account.and_then(Value::as_table).cloned())
}

fn entry(args: &AddArgs, hash: &Hash) -> String {
    let mut lines = vec![format!("[account.{}]", Value::from(args.of.name.as_str()))];
    lines.push(format!("password = {}", Value::from(hash.as_str())));
    let texts = [("full-name", &args.full_name), ("email", &args.email)];
    for (key, text) in texts {
        if let Some(text) = text {
            lines.push(format!("{key} = {}", Value::from(text.as_str())));
        }
    }
    if !args.groups.is_empty() {
        lines.push(format!("groups = {}", Value::from(args.groups.clone())));
    }
    lines.join("\n") + "\n"
}

/// Replaces the file whole, so that an engine never reads half of it; hashes are for the owner alone.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let fresh = path.with_extension("toml.new");
    let written: io::Result<()> = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        if let Ok(before) = fs::metadata(path) {
            file.set_permissions(before.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    })();
    written.with_context(|| format!("`{}` cannot be written", path.display()))
}

/// The hash of the password that is asked for.
fn hash() -> anyhow::Result<Hash> {
    let password = password()?;
    let length = password.expose().len();
    if password.expose().chars().count() < PASSWORD_CHARS_MIN || length > PASSWORD_BYTES_MAX {
        bail!(
            "the password must have {PASSWORD_CHARS_MIN} characters at least and {PASSWORD_BYTES_MAX} bytes at most"
        );
    }
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt)
        .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    Ok(Hash::of(password.expose(), salt))
}

fn password() -> anyhow::Result<Secret<String>> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let password = hidden("Password: ")?;
    if hidden("The same again: ")? != password {
        bail!("the two are not the same");
    }
    Ok(password)
}

/// A line typed unseen.
fn hidden(prompt: &str) -> anyhow::Result<Secret<String>> {
    let stdin = io::stdin();
    eprint!("{prompt}");
    let before = tcgetattr(&stdin).context("the terminal cannot be asked for a password")?;
    let mut unseen = before.clone();
    unseen.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Now, &unseen)
        .context("the terminal cannot be asked for a password")?;
    let typed = line();
    tcsetattr(&stdin, OptionalActions::Now, &before)
        .context("the terminal cannot be put back as it was, `stty echo` does")?;
    eprintln!();
    typed
}

fn line() -> anyhow::Result<Secret<String>> {
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("standard input cannot be read")?;
    let typed = Secret::new(line);
    let text = typed.expose().trim_end_matches(['\n', '\r']).to_owned();
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_entry_reads_back_as_it_was_given() {
        let args = AddArgs {
            of: NamedArgs {
                config: ConfigArgs::default(),
                name: "ada@example.com".into(),
            },
            full_name: Some("Ada \"the Countess\"".into()),
            email: None,
            groups: vec!["ops".into(), "dev".into()],
        };
        let text = entry(&args, &Hash::of("correct horse", [7; SALT_BYTES]));
        let read = table(&text, "ada@example.com").unwrap().unwrap();
        assert_eq!(
            read.get("full-name").unwrap().as_str(),
            Some("Ada \"the Countess\"")
        );
        assert!(!read.contains_key("email"));
        assert_eq!(read.get("groups").unwrap().as_array().unwrap().len(), 2);
        let hash = read.get("password").unwrap().as_str().unwrap();
        assert!(Hash::parse(hash).unwrap().matches("correct horse"));
    }
}
