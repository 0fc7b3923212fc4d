//! The credentials file: `[[credential]]` tables, read strictly, every mistake with its place.

use std::collections::HashMap;
use std::sync::Arc;

use adit_config::{Problem, Section};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::fingerprint::{self, Sha256};
use super::{
    Application, CREDENTIALS_MAX, Credential, Credentials, HASHES_MAX, PublicKey, PublicKeyError,
};
use crate::identity::token::{Permission, Permissions, TunnelResource};

/// Most problems reported for one file, after those of its shape.
const PROBLEMS_MAX: usize = 20;

/// Longest id, user id, name or mail address, in bytes: they end in header fields and log lines.
const TEXT_BYTES_MAX: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    credential: Vec<Entry>,
}

/// One table. What proves it: a public key, tokens, certificates; at least one of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    id: String,
    user: Option<String>,
    name: Option<String>,
    email: Option<String>,
    projects: Option<Vec<String>>,
    permissions: Option<Vec<String>>,
    resources: Option<Resources>,
    expires: Option<String>,
    updated_at: Option<String>,
    #[serde(default)]
    revoked: bool,
    client_id: Option<String>,
    public_key: Option<String>,
    #[serde(default)]
    token_sha256: Vec<String>,
    #[serde(default)]
    certificate_sha256: Vec<String>,
}

/// As in a token (engine-api §8.4).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resources {
    tunnels: Value,
}

impl Credentials {
    /// Reads the text of a credentials file. `projects` are those there are: one that a credential names and that is
    /// not among them is a mistake.
    ///
    /// # Errors
    /// Every mistake found.
    pub fn read<'p>(
        section: &Section,
        projects: impl IntoIterator<Item = &'p str>,
    ) -> Result<Self, Vec<Problem>> {
        let File { credential } = section.deserialize()?;
        if credential.len() > CREDENTIALS_MAX {
            return Err(vec![section.problem(
                Some("credential"),
                format!("more than {CREDENTIALS_MAX} credentials, which is too many for a file"),
            )]);
        }
        let mut reading = Reading {
            section,
            projects: projects.into_iter().collect(),
            credentials: Self::default(),
            keys: HashMap::new(),
            problems: Vec::new(),
        };
        for (index, entry) in credential.into_iter().enumerate() {
            reading.entry(index, entry);
            if reading.problems.len() >= PROBLEMS_MAX {
                break;
            }
        }
        match reading.problems.is_empty() {
            true => Ok(reading.credentials),
            false => Err(reading.problems),
        }
    }
}

/// What is read so far.
struct Reading<'s> {
    section: &'s Section,
    projects: Vec<&'s str>,
    credentials: Credentials,
    /// Which client id has a key.
    keys: HashMap<Vec<u8>, String>,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn wrong(&mut self, index: usize, key: &str, message: impl Into<String>) {
        let key = match key {
            "" => format!("credential.{index}"),
            key => format!("credential.{index}.{key}"),
        };
        self.problems
            .push(self.section.problem(Some(&key), message));
    }

    fn entry(&mut self, index: usize, entry: Entry) {
        for (key, text) in [
            ("id", Some(&entry.id)),
            ("user", entry.user.as_ref()),
            ("name", entry.name.as_ref()),
            ("email", entry.email.as_ref()),
            ("client-id", entry.client_id.as_ref()),
        ] {
            if text.is_some_and(|text| !is_plain(text)) {
                self.wrong(
                    index,
                    key,
                    format!("use 1 to {TEXT_BYTES_MAX} bytes of text without control characters"),
                );
            }
        }
        let credential = Arc::new(Credential {
            permissions: self.permissions(index, entry.permissions.as_deref()),
            boundary: self.boundary(index, entry.projects.as_deref(), entry.resources.as_ref()),
            expires: self
                .time(index, "expires", entry.expires.as_deref())
                .map(|time| time.unix_timestamp() as f64),
            updated_at: self.time(index, "updated-at", entry.updated_at.as_deref()),
            revoked: entry.revoked,
            user_id: entry.user.unwrap_or_else(|| {
                let client_id = entry.client_id.as_ref();
                client_id.unwrap_or(&entry.id).clone()
            }),
            name: entry.name,
            email: entry.email,
            id: entry.id,
        });
        if self.credentials.by_id.contains_key(&credential.id) {
            self.wrong(
                index,
                "id",
                format!("a second credential `{}`", credential.id),
            );
        }
        self.credentials
            .by_id
            .insert(credential.id.clone(), Arc::clone(&credential));
        if entry.public_key.is_none()
            && entry.token_sha256.is_empty()
            && entry.certificate_sha256.is_empty()
        {
            self.wrong(
                index,
                "",
                "nothing proves it: write `public-key`, `token-sha256` or `certificate-sha256`",
            );
        }
        match entry.public_key {
            Some(text) => self.application(index, entry.client_id, &text, &credential),
            None if entry.client_id.is_some() => {
                self.wrong(
                    index,
                    "client-id",
                    "of no use without the application's `public-key`",
                );
            }
            None => {}
        }
        for (key, texts) in [
            ("token-sha256", &entry.token_sha256),
            ("certificate-sha256", &entry.certificate_sha256),
        ] {
            if texts.len() > HASHES_MAX {
                self.wrong(
                    index,
                    key,
                    format!("more than {HASHES_MAX} hashes, use a credential for each owner"),
                );
            }
            for (at, text) in texts.iter().enumerate().take(HASHES_MAX) {
                self.hash(index, key, at, text, &credential);
            }
        }
    }

    fn application(
        &mut self,
        index: usize,
        client_id: Option<String>,
        text: &str,
        credential: &Arc<Credential>,
    ) {
        let (named, client_id) = match client_id {
            Some(client_id) => ("client-id", client_id),
            None => ("id", credential.id.clone()),
        };
        let key = match PublicKey::read(text) {
            Ok(key) => Arc::new(key),
            Err(error @ (PublicKeyError::Private | PublicKeyError::Unreadable)) => {
                return self.wrong(index, "public-key", error.to_string());
            }
        };
        if let Some(other) = self.keys.insert(key.der().to_vec(), client_id.clone()) {
            self.wrong(
                index,
                "public-key",
                format!("application `{other}` has the same key"),
            );
        }
        if self.credentials.applications.contains_key(&client_id) {
            self.wrong(
                index,
                named,
                format!("a second application with client id `{client_id}`"),
            );
        }
        let credential = Arc::clone(credential);
        self.credentials
            .applications
            .insert(client_id, Application { credential, key });
    }

    fn hash(
        &mut self,
        index: usize,
        list: &str,
        at: usize,
        text: &str,
        credential: &Arc<Credential>,
    ) {
        let place = format!("{list}.{at}");
        let hash: Sha256 = match fingerprint::read(text) {
            Ok(hash) => hash,
            Err(error) => return self.wrong(index, &place, error.to_string()),
        };
        let known = match list {
            "token-sha256" => &mut self.credentials.tokens,
            _ => &mut self.credentials.certificates,
        };
        if let Some(other) = known.insert(hash, Arc::clone(credential)) {
            self.wrong(
                index,
                &place,
                format!("credential `{}` has the same hash", other.id),
            );
        }
    }

    fn permissions(&mut self, index: usize, texts: Option<&[String]>) -> Option<Permissions> {
        let mut permissions = Vec::new();
        for (at, text) in texts?.iter().enumerate() {
            match text.parse::<Permission>() {
                Ok(permission) => permissions.push(permission),
                Err(_) => {
                    let known = Permission::ALL.iter().map(|known| known.as_str());
                    let known: Vec<&str> = known.collect();
                    self.wrong(
                        index,
                        &format!("permissions.{at}"),
                        format!("no permission `{text}`, use {}", known.join(", ")),
                    );
                }
            }
        }
        Some(permissions.into_iter().collect())
    }

    fn boundary(
        &mut self,
        index: usize,
        projects: Option<&[String]>,
        resources: Option<&Resources>,
    ) -> Option<TunnelResource> {
        let mut boundary = None;
        if let Some(projects) = projects {
            for (at, project) in projects.iter().enumerate() {
                if !self.projects.contains(&project.as_str()) {
                    let known = self.projects.join(", ");
                    self.wrong(
                        index,
                        &format!("projects.{at}"),
                        format!("no project `{project}`, use {known}"),
                    );
                }
            }
            match TunnelResource::parse(&json!({ "projects": projects })) {
                Ok(leaf) => boundary = Some(leaf),
                Err(error) => self.wrong(index, "projects", error.to_string()),
            }
        }
        let Some(Resources { tunnels }) = resources else {
            return boundary;
        };
        let narrowed = TunnelResource::parse(tunnels).and_then(|tree| match &boundary {
            Some(leaf) => leaf.and(&tree),
            None => Ok(tree),
        });
        narrowed
            .map_err(|error| self.wrong(index, "resources.tunnels", error.to_string()))
            .ok()
    }

    fn time(&mut self, index: usize, key: &str, text: Option<&str>) -> Option<OffsetDateTime> {
        let read = OffsetDateTime::parse(text?, &Rfc3339);
        read.map_err(|_| {
            self.wrong(
                index,
                key,
                "not a time, use one with its offset such as 2027-01-31T12:00:00Z",
            );
        })
        .ok()
    }
}

fn is_plain(text: &str) -> bool {
    (1..=TEXT_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}
