//! `adit plugin new`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use adit_config::Secret;
use adit_plugins::Services;
use adit_plugins::identity::token::Authority;
use anyhow::{Context as _, bail};
use clap::Args;

use super::language::Language;

/// Longest name: it is a file's, a package's and a filter's.
const NAME_BYTES_MAX: usize = 40;

/// Begin a filter: a folder with a project that builds as it stands
#[derive(Debug, Args)]
#[command(after_help = "\
The folder has everything but the compiler: the filter, cases to try it with, and what filters are
written with. Nothing that is there already is touched.

Examples:
  adit plugin new only-browsers
  adit plugin new only-browsers --lang js && cd only-browsers && adit plugin build")]
pub(super) struct NewArgs {
    /// What the filter is called, and its folder
    name: String,
    /// The language it is written in
    #[arg(long, value_enum, default_value = "rust", value_name = "LANGUAGE")]
    lang: Language,
}

pub(super) fn new(args: &NewArgs) -> anyhow::Result<()> {
    let NewArgs { name, lang } = args;
    check(name)?;
    let files = lang.files(name)?;
    let folder = Path::new(name);
    match fs::create_dir(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("`{name}` is there already, and stays as it is: choose another name")
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot make the folder `{name}`"));
        }
    }
    for file in files {
        let path = folder.join(&*file.path);
        let shown = path.display();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("cannot make `{shown}`"))?;
        }
        fs::write(&path, &*file.text).with_context(|| format!("cannot write `{shown}`"))?;
    }
    print!(
        "\
{name}/ is a filter in {}: it turns user agents away that its table names

  cd {name}
  adit plugin build                   # builds and checks it
  adit plugin test {name}.wasm        # tries the cases of cases.toml on it

{} is the filter, vendor/adit/wit/README.md says what filters can do
",
        lang.name(),
        lang.source()
    );
    Ok(())
}

/// Whether a filter may be called so, in whatever language it is written.
fn check(name: &str) -> anyhow::Result<()> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(letters)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-');
    if !fits {
        bail!(
            "`{name}` cannot be a filter's name, use 1 to {NAME_BYTES_MAX} of `a-z`, `0-9` and `-`, a letter first and no `-` last"
        );
    }
    if built_in(name)? {
        bail!("there is a built-in filter `{name}`, use another name");
    }
    Ok(())
}

fn built_in(name: &str) -> anyhow::Result<bool> {
    // Nothing is ever signed with it.
    let secret = Secret::new("names of filters are looked at, and nothing else".to_owned());
    let authority = Authority::new(&secret).context("the built-in filters cannot be listed")?;
    let services = Services::new(Arc::new(authority));
    Ok(adit_plugins::registry(&services).find(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_filters_yet_to_come() {
        for name in ["a", "only-browsers", "x2", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(check(name).is_ok(), "{name}");
        }
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "A", "a_b", "a/b", "../a", "-a", "a-", "2x", ".", &long] {
            let said = check(name).map_err(|error| error.to_string());
            assert!(
                said.is_err_and(|text| text.contains("cannot be a filter's name")),
                "{name}"
            );
        }
        for name in ["geoip", "trusted-ips"] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
