//! Local accounts: a file of users and their passwords' hashes, for deployments without a provider.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use adit_config::{Problem, Section, Settling, Stamp};
use arc_swap::ArcSwap;
use serde::Deserialize;

use super::passwords::{Hash, SALT_BYTES};
use super::seal::hash;
use super::session::Proof;
use super::user::{IMAGE_BYTES_MAX, User, tidy};

/// Largest file of accounts, in bytes.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Most accounts in it.
pub const ACCOUNTS_MAX: usize = 10_000;

/// Longest name of an account, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Most groups of one account.
const GROUPS_MAX: usize = 64;

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    account: BTreeMap<String, WrittenAccount>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenAccount {
    password: String,
    full_name: Option<String>,
    email: Option<String>,
    image: Option<String>,
    #[serde(default)]
    groups: BTreeSet<String>,
}

/// One account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) user: User,
    pub(crate) proof: Proof,
    pub(crate) hash: Hash,
}

/// Everything in the file, never changed, only replaced whole.
#[derive(Debug)]
struct Book {
    accounts: HashMap<String, Arc<Account>>,
    decoy: Hash,
}

/// The accounts of an engine, read again when their file changes.
#[derive(Debug)]
pub(crate) struct Accounts {
    path: PathBuf,
    book: ArcSwap<Book>,
    settling: Mutex<Settling>,
}

impl Accounts {
    /// Reads the file.
    ///
    /// # Errors
    /// Everything that is wrong with it, with positions.
    pub(crate) fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        let stamp = Stamp::of(path);
        let book = Book::read(path)?;
        Ok(Self {
            path: path.to_owned(),
            book: ArcSwap::from_pointee(book),
            settling: Mutex::new(Settling::acted_upon(stamp)),
        })
    }

    /// The account of this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Account>> {
        self.book.load().accounts.get(name).cloned()
    }

    /// What to compare a password with where there is no account, so that it takes as long.
    pub(crate) fn decoy(&self) -> Hash {
        self.book.load().decoy.clone()
    }

    /// Reads the file again if it has changed and is not being written any more. With a mistake in it, or without it,
    /// what was read before stays.
    pub(crate) fn look(&self) {
        let now = Stamp::of(&self.path);
        {
            let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
            if !settling.look(now) || now.is_none() {
                return;
            }
        }
        match Book::read(&self.path) {
            Ok(book) => {
                tracing::info!(
                    count = book.accounts.len(),
                    "the accounts have been read again"
                );
                self.book.store(Arc::new(book));
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!("{problem}");
                }
                tracing::error!("the accounts are as they were before");
            }
        }
    }
}

impl Book {
    fn read(path: &Path) -> Result<Self, Vec<Problem>> {
        let shown = path.display().to_string();
        let text = text(path)
            .map_err(|error| vec![Problem::of_file(&shown, format!("cannot be read: {error}"))])?;
        Self::parse(&shown, &text)
    }

    fn parse(shown: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let section = Section::parse(shown, text)?;
        let Written { account } = section.deserialize()?;
        let mut problems = Vec::new();
        if account.len() > ACCOUNTS_MAX {
            let message = format!("more than {ACCOUNTS_MAX} accounts, use a provider");
            problems.push(section.problem(Some("account"), message));
        }
        let mut accounts = HashMap::new();
        for (name, written) in account {
            match entry(&name, written) {
                Ok(account) => {
                    accounts.insert(name, Arc::new(account));
                }
                Err((key, message)) => {
                    let key = format!("account.{name}{key}");
                    problems.push(section.problem(Some(&key), message));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        // Whichever comes first in the alphabet: the same each time.
        let dearest = accounts.iter().min_by_key(|(name, _)| *name);
        let decoy = dearest.map_or_else(
            || Hash::of("", [0; SALT_BYTES]),
            |(_, account)| account.hash.decoy(),
        );
        Ok(Self { accounts, decoy })
    }
}

fn entry(name: &str, written: WrittenAccount) -> Result<Account, (&'static str, String)> {
    if !is_name(name) {
        return Err(("", not_a_name(name)));
    }
    let password =
        Hash::parse(&written.password).map_err(|error| (".password", error.to_string()))?;
    if let Some(email) = &written.email
        && !email.contains('@')
    {
        return Err((".email", format!("`{email}` is not a mail address")));
    }
    if written.groups.len() > GROUPS_MAX {
        return Err((".groups", format!("more than {GROUPS_MAX} groups")));
    }
    let user = User {
        id: format!("account:{name}"),
        name: written.full_name.as_deref().and_then(tidy),
        email: written.email.as_deref().and_then(tidy),
        image: written.image.filter(|image| image.len() <= IMAGE_BYTES_MAX),
        groups: written.groups,
        claims: BTreeMap::new(),
    };
    let proof = Proof::Account {
        name: name.to_owned(),
        stamp: hash(password.as_str()).chars().take(12).collect(),
    };
    Ok(Account {
        user,
        proof,
        hash: password,
    })
}

/// Whether an account may be called so: what people type is made lower case first.
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'@' | b'+'),
        )
}

/// What is wrong with a name that is none.
#[must_use]
pub fn not_a_name(name: &str) -> String {
    format!(
        "`{name}` is not a name, use 1 to {NAME_BYTES_MAX} lower case letters, digits and `.`, `_`, `-`, `@`, `+`"
    )
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if read as u64 > FILE_BYTES_MAX {
        let message = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::*;

    const HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$BwcHBwcHBwcHBwcHBwcHBw$\
                        GpZ3sK/oH9p7VIiV56G/64Zo/8GaUw434IimaPqxwCo";

    fn account(more: &str) -> String {
        format!("[account.ada]\npassword = '{HASH}'\n{more}")
    }

    #[test]
    fn an_account_is_read_with_what_is_known_of_its_user() {
        let text = account("full-name = 'Ada'\nemail = 'ada@example.com'\ngroups = ['ops']\n");
        let book = Book::parse("accounts.toml", &text).unwrap();
        let ada = &book.accounts["ada"];
        assert_eq!(ada.user.id, "account:ada");
        assert_eq!(ada.user.name.as_deref(), Some("Ada"));
        assert_eq!(ada.user.email.as_deref(), Some("ada@example.com"));
        assert_eq!(ada.user.groups, ["ops".to_owned()].into());
        assert!(book.decoy.as_str().contains("m=64,t=1,p=1"));
        assert!(
            Book::parse("accounts.toml", "")
                .unwrap()
                .accounts
                .is_empty()
        );
    }

    #[test]
    fn every_mistake_has_its_position() {
        let cases = [
            (
                "[account.ada]\npassword = 'hunter2'".to_owned(),
                "accounts.toml:2:12: account.ada.password: not the hash of a password",
            ),
            (
                account("mail = 'x'"),
                "accounts.toml:3:1: account.ada.mail: unknown key `mail`, did you mean `email`?",
            ),
            (
                account("email = 'x'"),
                "accounts.toml:3:9: account.ada.email: `x` is not a mail address",
            ),
            (
                account(&format!(
                    "groups = [{}]",
                    (0..=GROUPS_MAX)
                        .map(|at| format!("'{at}',"))
                        .collect::<String>()
                )),
                "accounts.toml:3:10: account.ada.groups: more than 64 groups",
            ),
            (
                account("").replace("ada", "Ada"),
                "accounts.toml:1:1: account.Ada: `Ada` is not a name",
            ),
            (
                "[account.ada]\n".to_owned(),
                "accounts.toml:1:1: account.ada: ",
            ),
            ("[account".to_owned(), "accounts.toml:1:"),
        ];
        for (text, expected) in cases {
            let problems = Book::parse("accounts.toml", &text).unwrap_err();
            let first = problems[0].to_string();
            assert!(first.starts_with(expected), "{first}");
        }
    }

    #[test]
    fn the_file_is_read_again_once_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.toml");
        assert!(Accounts::read(&path).is_err(), "there is none");
        fs::write(&path, account("")).unwrap();
        let accounts = Accounts::read(&path).unwrap();
        let grace = account("").replace("ada", "grace");
        let look = |grace: bool| {
            accounts.look();
            assert_eq!(accounts.find("grace").is_some(), grace);
            assert_eq!(accounts.find("ada").is_some(), !grace);
        };
        look(false);
        fs::write(&path, &grace).unwrap();
        look(false); // it may be in the middle of being written
        look(true);
        fs::write(&path, "nonsense").unwrap();
        look(true);
        look(true);
        fs::remove_file(&path).unwrap();
        look(true);
        look(true);
        fs::write(&path, account("# again\n")).unwrap();
        look(true);
        look(false);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.toml");
        let text = |length: u64| "#".repeat(usize::try_from(length).unwrap());
        fs::write(&path, text(FILE_BYTES_MAX + 1)).unwrap();
        let problem = Accounts::read(&path).unwrap_err()[0].to_string();
        assert!(problem.contains("larger than"), "{problem}");
    }

    #[test]
    fn no_more_accounts_are_read_than_the_bound_allows() {
        let text: String = (0..=ACCOUNTS_MAX)
            .map(|at| format!("[account.u{at}]\npassword = '{HASH}'\n"))
            .collect();
        let problem = Book::parse("accounts.toml", &text).unwrap_err()[0].to_string();
        assert!(problem.contains("more than 10000 accounts"), "{problem}");
    }

    #[test]
    fn names_are_what_people_can_type() {
        for name in ["ada", "ada.l@example.com", "a-1_2+3"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Ada", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
