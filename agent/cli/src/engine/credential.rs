//! `adit engine credential`: what to write of a token, a certificate or a key into the credentials file.

use std::io::Read;
use std::path::PathBuf;

use adit_plugins::identity::credentials::{PublicKey, sha256};
use adit_plugins::identity::token::TOKEN_BYTES_MAX;
use anyhow::{Context, bail};
use clap::Args;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Longest file that is read, in bytes: a chain of large certificates.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// Print the line that a token, a certificate or a key is in the credentials file
///
/// The file holds a token, a client certificate in PEM, or the key of an application: public or
/// private (PKCS #8), in PEM or as its client secret. What is printed is no secret.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adit engine credential client.pem
  adit engine token --subject ada | adit engine credential -")]
pub(crate) struct CredentialArgs {
    /// The file; `-` for standard input
    file: PathBuf,
}

pub(super) fn run(args: &CredentialArgs) -> anyhow::Result<()> {
    println!("{}", line(&read(args)?)?);
    Ok(())
}

fn read(args: &CredentialArgs) -> anyhow::Result<String> {
    let mut octets = Vec::new();
    let read = if args.file.as_os_str() == "-" {
        std::io::stdin()
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut octets)
    } else {
        std::fs::File::open(&args.file)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut octets))
    };
    read.with_context(|| format!("cannot read `{}`", args.file.display()))?;
    if octets.len() as u64 > FILE_BYTES_MAX {
        bail!("longer than {FILE_BYTES_MAX} bytes, which no credential is");
    }
    String::from_utf8(octets).context("not text: give certificates and keys in PEM")
}

/// What to write, whatever `text` is.
fn line(text: &str) -> anyhow::Result<String> {
    let text = text.trim();
    if text.contains("-----BEGIN CERTIFICATE-----") {
        // The first is the one that is shown; what follows vouches for it.
        let leaf = CertificateDer::from_pem_slice(text.as_bytes())
            .context("the certificate cannot be read")?;
        return Ok(hashed("certificate-sha256", &leaf));
    }
    let key = PublicKey::of_secret(text).or_else(|| PublicKey::read(text).ok());
    if let Some(key) = key {
        return Ok(format!("public-key = \"{}\"", hex::encode(key.der())));
    }
    // A hash is of every octet: what is not surely a token would be one that nobody ever shows.
    let part = |part: &str| {
        let digit = |octet: u8| octet.is_ascii_alphanumeric() || b"-_".contains(&octet);
        !part.is_empty() && part.bytes().all(digit)
    };
    if text.len() <= TOKEN_BYTES_MAX && text.split('.').count() == 3 && text.split('.').all(part) {
        return Ok(hashed("token-sha256", text.as_bytes()));
    }
    bail!(
        "neither a token, nor a certificate in PEM, nor a key on P-521 in PEM or hexadecimal digits"
    )
}

fn hashed(key: &str, octets: &[u8]) -> String {
    format!("{key} = [\"{}\"]", hex::encode(sha256(octets)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use adit_config::Section;
    use adit_plugins::identity::credentials::Credentials;

    use super::*;

    #[test]
    fn what_is_printed_can_be_pasted() {
        let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a.example".to_owned()])
            .unwrap()
            .self_signed(&own)
            .unwrap();
        let secret = hex::encode(own.serialized_der());
        let public = line(&own.public_key_pem()).unwrap();
        assert_eq!(line(&own.serialize_pem()).unwrap(), public);
        assert_eq!(line(&secret).unwrap(), public);
        assert!(!public.contains(&secret[64..128]));
        // engine-api §8.3: a published token and its hash.
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXBlIjoicGF0IiwidG9rZW5fZW5kcG9pbnQiOiIwYTFiMmMzZCIsImlhdCI6MTgwMDAwMDAwMCwiZXhwIjoxODMxNTM2MDAwfQ.jFV5WKrWdLgKlrjYu3JwEsCo8hGKUeqolKEd6GPbhHQ\n";
        let token = line(token).unwrap();
        assert_eq!(
            token,
            "token-sha256 = [\"a11d5ca28f63ffaec35b240ec560271c19a50cf42dff4d082a786d36fe3be3f6\"]"
        );
        let leaf = line(&certificate.pem()).unwrap();
        for line in [public, token, leaf] {
            let text = format!("[[credential]]\nid = \"a\"\n{line}\n");
            let section = Section::parse("credentials.toml", &text).unwrap();
            let read = Credentials::read(&section, ["default"]).unwrap();
            assert_eq!(read.len(), 1, "{line}");
        }
    }

    #[test]
    fn what_is_no_credential_is_refused() {
        for text in [
            "",
            "hello",
            "two.parts",
            "a.b.c d",
            "a..c",
            "1.2.3.4",
            "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----",
            "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----",
        ] {
            assert!(line(text).is_err(), "{text}");
        }
    }
}
