//! Passwords: hashed with Argon2id ([RFC 9106](https://www.rfc-editor.org/rfc/rfc9106)), compared on threads of their
//! own, because that is slow on purpose.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_config::Secret;
use adit_filters::Env;
use adit_filters::env::JobsError;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::oneshot;

/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Shortest password that an account is given, in characters.
pub const PASSWORD_CHARS_MIN: usize = 8;

/// Octets of a salt (RFC 9106 §3.1).
pub const SALT_BYTES: usize = 16;

/// Most memory that a hash may ask for, in KiB: two are computed at a time.
const MEMORY_KIB_MAX: u32 = 256 * 1024;

/// Most passes over it.
const PASSES_MAX: u32 = 16;

/// Most lanes.
const LANES_MAX: u32 = 16;

/// How many passwords are compared at a time.
const WORKERS: usize = 2;

/// How many wait for their turn: about a second's worth.
pub const WAITING_MAX: usize = 64;

/// Time between two looks of an idle worker at what it is told to look at.
const LOOK: Duration = Duration::from_secs(2);

/// The hash of a password, as it is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hash(String);

/// Why a text is not the hash of a password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HashError {
    /// It is something else.
    #[error("not the hash of a password, `adit engine account add NAME` prints one")]
    Form,
    /// It would cost too much to compare with.
    #[error(
        "asks for more than {MEMORY_KIB_MAX} KiB, {PASSES_MAX} passes or {LANES_MAX} lanes, hash the password again"
    )]
    Cost,
}

impl Hash {
    /// Reads a hash in PHC form.
    ///
    /// # Errors
    /// [`HashError`].
    pub fn parse(text: &str) -> Result<Self, HashError> {
        let hash = PasswordHash::new(text).map_err(|_| HashError::Form)?;
        let is_argon2id = Algorithm::try_from(hash.algorithm.as_str()) == Ok(Algorithm::Argon2id);
        if !is_argon2id || hash.hash.is_none() || hash.salt.is_none() {
            return Err(HashError::Form);
        }
        let params = Params::try_from(&hash).map_err(|_| HashError::Form)?;
        let dear = params.m_cost() > MEMORY_KIB_MAX
            || params.t_cost() > PASSES_MAX
            || params.p_cost() > LANES_MAX;
        if dear {
            return Err(HashError::Cost);
        }
        Ok(Self(text.to_owned()))
    }

    /// Hashes a password with a salt that nobody used before.
    #[must_use]
    pub fn of(password: &str, salt: [u8; SALT_BYTES]) -> Self {
        Self::with(Params::DEFAULT, password, salt)
    }

    fn with(params: Params, password: &str, salt: [u8; SALT_BYTES]) -> Self {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash = argon2
            .hash_password_with_salt(password.as_bytes(), &salt)
            .expect("salt and parameters are within the algorithm's limits");
        Self(hash.to_string())
    }

    /// A hash that costs as much as this one and belongs to no password.
    pub(crate) fn decoy(&self) -> Self {
        let params = PasswordHash::new(&self.0)
            .ok()
            .and_then(|hash| Params::try_from(&hash).ok());
        Self::with(params.unwrap_or(Params::DEFAULT), "", [0; SALT_BYTES])
    }

    /// The hash in PHC form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is this password's.
    #[must_use]
    pub fn matches(&self, password: &str) -> bool {
        PasswordHash::new(&self.0).is_ok_and(|hash| {
            Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        })
    }
}

/// Compares passwords, a few at a time.
#[derive(Clone, Debug)]
pub(crate) struct Comparer {
    queue: SyncSender<Comparison>,
}

#[derive(Debug)]
struct Comparison {
    password: Secret<String>,
    hash: Hash,
    answer: oneshot::Sender<bool>,
}

/// Too many wait already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Busy;

impl Comparer {
    /// Starts the threads. While they have nothing to compare they `look` from time to time; they end with the last of
    /// this.
    ///
    /// # Errors
    /// If there is no thread.
    pub(crate) fn start(
        env: &Env,
        look: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, JobsError> {
        let (queue, waiting) = sync_channel(WAITING_MAX);
        let (waiting, look) = (Arc::new(Mutex::new(waiting)), Arc::new(look));
        for _ in 0..WORKERS {
            let (waiting, look) = (Arc::clone(&waiting), Arc::clone(&look));
            let work = move || work(&waiting, &*look);
            env.jobs.spawn_blocking("passwords", Box::new(work))?;
        }
        Ok(Self { queue })
    }

    /// Whether `hash` is that of `password`.
    pub(crate) async fn compare(&self, password: Secret<String>, hash: Hash) -> Result<bool, Busy> {
        let (answer, answered) = oneshot::channel();
        let comparison = Comparison {
            password,
            hash,
            answer,
        };
        self.queue
            .try_send(comparison)
            .map_err(|_full_or_ended| Busy)?;
        answered.await.map_err(|_| Busy)
    }
}

fn work(waiting: &Mutex<Receiver<Comparison>>, look: &dyn Fn()) {
    let mut looked = Instant::now();
    loop {
        let next = waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv_timeout(LOOK.saturating_sub(looked.elapsed()));
        // However much there is to compare: who has no account any more must not get in by being many.
        if looked.elapsed() >= LOOK {
            look();
            looked = Instant::now();
        }
        match next {
            Ok(comparison) => {
                // Whoever asked may have left: then nobody needs the answer.
                if !comparison.answer.is_closed() {
                    let matches = comparison.hash.matches(comparison.password.expose());
                    let _gone = comparison.answer.send(matches);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::env::fake::Fake;

    use super::*;

    #[test]
    fn a_hash_belongs_to_its_password() {
        let hash = Hash::of("correct horse", [7; SALT_BYTES]);
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert_eq!(Hash::parse(hash.as_str()), Ok(hash.clone()));
        assert!(hash.matches("correct horse"));
        for wrong in ["correct horse ", "", "Correct horse"] {
            assert!(!hash.matches(wrong), "{wrong:?}");
        }
        assert_ne!(hash, Hash::of("correct horse", [8; SALT_BYTES]));
    }

    #[test]
    fn only_hashes_that_can_be_compared_with_are_taken() {
        let hash = Hash::of("x", [7; SALT_BYTES]).as_str().to_owned();
        let with = |from: &str, to: &str| Hash::parse(&hash.replace(from, to)).err();
        assert_eq!(with("argon2id", "argon2i"), Some(HashError::Form));
        assert_eq!(with("argon2id", "scrypt"), Some(HashError::Form));
        assert_eq!(with("m=19456", "m=262145"), Some(HashError::Cost));
        assert_eq!(with("m=19456", "m=262144"), None);
        assert_eq!(with("t=2", "t=17"), Some(HashError::Cost));
        assert_eq!(with("p=1", "p=17"), Some(HashError::Cost));
        for text in [
            "",
            "hunter2",
            "$argon2id$",
            "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ",
        ] {
            assert_eq!(Hash::parse(text), Err(HashError::Form), "{text}");
        }
    }

    #[test]
    fn a_decoy_costs_the_same_and_is_nobodys() {
        let cheap = Hash::with(Params::new(64, 3, 1, None).unwrap(), "x", [7; SALT_BYTES]);
        let decoy = cheap.decoy();
        assert!(decoy.as_str().contains("$m=64,t=3,p=1$"));
        assert!(!decoy.matches("x"));
    }

    #[tokio::test]
    async fn no_more_passwords_wait_than_the_bound_allows() {
        let fake = Fake::default();
        let comparer = Comparer::start(&fake.env(), || ()).unwrap();
        let hash = Hash::with(Params::new(8, 1, 1, None).unwrap(), "x", [7; SALT_BYTES]);
        let mut asked = Vec::new();
        for _ in 0..WAITING_MAX {
            let (comparer, hash) = (comparer.clone(), hash.clone());
            let mut one =
                Box::pin(async move { comparer.compare(Secret::new("x".into()), hash).await });
            assert!(polled(&mut one).is_none());
            asked.push(one);
        }
        let one_more = comparer.compare(Secret::new("x".into()), hash.clone());
        assert_eq!(one_more.await, Err(Busy));
        drop(comparer);
        let jobs = fake.jobs.take_blocking();
        assert_eq!(jobs.len(), WORKERS);
        let threads: Vec<_> = jobs
            .into_iter()
            .map(|(_, job)| std::thread::spawn(job))
            .collect();
        for one in asked {
            assert_eq!(one.await, Ok(true));
        }
        for thread in threads {
            thread.join().unwrap();
        }
    }

    fn polled<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> Option<F::Output> {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
