//! What `adit dev` keeps between runs: a certificate browsers can be told to trust, and a secret.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

/// How long the certificates are valid: browsers refuse more than 398 days of a leaf.
const VALID: time::Duration = time::Duration::days(397);
/// At this age they are made anew.
const RENEWED: Duration = Duration::from_secs(300 * 24 * 60 * 60);
/// Bytes of the token secret before it is written in hexadecimal.
const SECRET_BYTES: usize = 32;

/// The files of one development engine.
pub(super) struct State {
    folder: PathBuf,
}

impl State {
    /// Opens the folder, and makes what is missing or too old.
    pub(super) fn open(folder: &Path, host: &str) -> anyhow::Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        let state = Self {
            folder: folder.to_owned(),
        };
        if !state.is_fresh() {
            state.make_certificates(host)?;
        }
        if !state.secret().exists() {
            let mut bytes = [0; SECRET_BYTES];
            getrandom::fill(&mut bytes).context("the system gives no randomness")?;
            let text: String = hex::encode(bytes);
            write_private(&state.secret(), &text)?;
        }
        Ok(state)
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// The development CA's certificate.
    pub(super) fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    pub(super) fn secret(&self) -> PathBuf {
        self.folder.join("jwt.secret")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    fn is_fresh(&self) -> bool {
        [self.ca(), self.certificate(), self.key()]
            .iter()
            .all(|file| {
                let changed = fs::metadata(file).and_then(|meta| meta.modified());
                let age = changed.ok().and_then(|changed| changed.elapsed().ok());
                age.is_some_and(|age| age < RENEWED)
            })
    }

    /// A CA that signs one certificate; its key is never written, so it can sign no other.
    fn make_certificates(&self, host: &str) -> anyhow::Result<()> {
        let now = OffsetDateTime::now_utc() - time::Duration::hours(1);
        let mut ca = CertificateParams::default();
        ca.distinguished_name
            .push(DnType::CommonName, "Adit development CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (ca.not_before, ca.not_after) = (now, now + VALID);
        let ca_key = KeyPair::generate()?;
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let names = vec![
            host.to_owned(),
            format!("*.t.{host}"),
            "localhost".to_owned(),
            "*.t.localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ];
        let mut leaf = CertificateParams::new(names)?;
        leaf.distinguished_name
            .push(DnType::CommonName, "Adit development engine");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        (leaf.not_before, leaf.not_after) = (now, now + VALID);
        let key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&key, &issuer)?;

        write_private(&self.key(), &key.serialize_pem())?;
        fs::write(self.certificate(), certificate.pem())?;
        fs::write(self.ca(), ca_certificate.pem())?;
        Ok(())
    }
}

/// Writes a file only its owner can read, whole or not at all.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    // A file left behind by a run that was killed may have other rights.
    let _absent = fs::remove_file(&temporary);
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("cannot write `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_the_owners_alone_and_survive_a_second_run() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("state");
        let state = State::open(&place, "adit.localhost").unwrap();
        for file in [state.key(), state.secret()] {
            let mode = fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let first = fs::read(state.secret()).unwrap();
        let certificate = fs::read(state.certificate()).unwrap();
        let again = State::open(&place, "adit.localhost").unwrap();
        assert_eq!(fs::read(again.secret()).unwrap(), first);
        assert_eq!(fs::read(again.certificate()).unwrap(), certificate);
        // A missing part is made again, whole.
        fs::remove_file(state.ca()).unwrap();
        State::open(&place, "adit.localhost").unwrap();
        assert_ne!(fs::read(state.certificate()).unwrap(), certificate);
    }
}
