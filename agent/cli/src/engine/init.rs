//! `adit engine init`: a configuration and a secret to start from.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use adit_config::Config;
use anyhow::{Context, bail};
use clap::Args;

/// Octets of a fresh secret: as long as the hash it keys (RFC 7518 §3.2).
const SECRET_OCTETS: usize = 32;

/// Write a commented engine.toml and a secret, and say what to do next
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Public name of the engine; tunnels are published below `t.HOST`
    #[arg(long)]
    host: String,
    /// Where to write; made if it is not there
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub(super) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let text = configuration(&args.host)?;
    let config = args.dir.join("engine.toml");
    let secret = args.dir.join("jwt.secret");
    for path in [&config, &secret] {
        if path.exists() {
            bail!(
                "`{}` is there already and stays as it is: choose another --dir",
                path.display()
            );
        }
    }
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("cannot make `{}`", args.dir.display()))?;
    write_new(&secret, 0o600, &format!("{}\n", fresh_secret()?))?;
    write_new(&config, 0o644, &text)?;
    print!("{}", next_steps(&args.host, &config, &secret));
    Ok(())
}

/// The example with this host, if it is one.
fn configuration(host: &str) -> anyhow::Result<String> {
    const EXAMPLE_HOST: &str = "host = \"edge.example.com\"";
    // Written as a TOML string, whatever it is: reading it back judges it.
    let line = format!("host = {}", toml::Value::from(host));
    let text = adit_config::EXAMPLE.replacen(EXAMPLE_HOST, &line, 1);
    // The secret comes from the environment here, for its file is not yet there.
    let secret = ("ADIT_AUTH__JWT_SECRET".to_owned(), "x".repeat(64));
    match Config::parse("engine.toml", &text, [secret]) {
        Ok(_) => Ok(text),
        Err(invalid) => {
            let problems = invalid.problems().iter();
            let reasons: Vec<&str> = problems.map(|problem| problem.message()).collect();
            bail!("--host: {}", reasons.join("; "))
        }
    }
}

fn fresh_secret() -> anyhow::Result<String> {
    let mut octets = [0; SECRET_OCTETS];
    getrandom::fill(&mut octets)
        .map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    Ok(hex::encode(octets))
}

/// Writes a file that must not exist, readable from its first moment by whom `mode` says.
fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let written: io::Result<()> = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })();
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

fn next_steps(host: &str, config: &Path, secret: &Path) -> String {
    let (config_shown, secret) = (config.display(), secret.display());
    let folder = config.parent().filter(|dir| !dir.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).display();
    format!(
        "\
Wrote {config_shown} and {secret} (keep the secret to yourself).

Next, on this machine:

  1. Point {host} and *.t.{host} at it (DNS records of type A, AAAA).
  2. Put a certificate for both names into {folder}: cert.pem (the whole chain) and key.pem.
  3. Check, and run:

       adit engine check --config {config_shown}
       adit engine --config {config_shown}

  4. Make a token for an agent:

       (umask 077; adit engine token --config {config_shown} --subject laptop > laptop.token)

Then, where your service runs, with that file:

       adit forward 3000 --engine {host} --token-file laptop.token
"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn init(dir: &Path, host: &str) -> anyhow::Result<()> {
        run(&InitArgs {
            host: host.to_owned(),
            dir: dir.to_owned(),
        })
    }

    #[test]
    fn what_is_written_can_be_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("new/adit");
        init(&dir, "gate.example.org").unwrap();
        let config = Config::load(&dir.join("engine.toml"), []).unwrap();
        assert_eq!(config.engine.host, "gate.example.org");
        assert_eq!(config.auth.jwt_secret.expose().len(), 64);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        let mode = fs::metadata(dir.join("jwt.secret"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "gate.example.org").unwrap();
        let secret = folder.path().join("jwt.secret");
        let before = fs::read_to_string(&secret).unwrap();
        assert!(init(folder.path(), "other.example.org").is_err());
        fs::remove_file(folder.path().join("engine.toml")).unwrap();
        assert!(init(folder.path(), "other.example.org").is_err());
        assert!(!folder.path().join("engine.toml").exists());
        assert_eq!(fs::read_to_string(&secret).unwrap(), before);
    }

    #[test]
    fn a_host_that_is_none_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        for host in [
            "https://x.y",
            "x.y:443",
            "1.2.3.4",
            "a b",
            "",
            "x\"\nthreads = 3 #",
        ] {
            let error = init(folder.path(), host).unwrap_err().to_string();
            assert!(error.starts_with("--host: "), "{error}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_next_steps_name_the_files_that_were_written() {
        let text = next_steps(
            "gate.example.org",
            Path::new("engine.toml"),
            Path::new("jwt.secret"),
        );
        for line in [
            "adit engine --config engine.toml",
            "adit forward 3000 --engine gate.example.org --token-file laptop.token",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
