//! Signing in with a browser (edge-behaviour §7.6).
//!
//! A visitor without a session is sent to the engine's own host (`tunnel`), signs in there with a local account or at
//! an OpenID Connect provider (`serve`), and comes back with a code that counts once; the tunnel's host turns it into
//! a session of its own (`session`). Who is signed in on the engine's host needs no password for a second tunnel.

mod accounts;
mod codes;
pub(crate) mod cookies;
mod desk;
mod filter;
mod oidc;
mod pages;
mod passwords;
pub(crate) mod seal;
mod serve;
mod session;
mod throttle;
mod tunnel;
mod user;

pub use accounts::{ACCOUNTS_MAX, FILE_BYTES_MAX, NAME_BYTES_MAX, is_name, not_a_name};
pub use codes::{CODE_LIFE, CODES_MAX, CODES_PER_USER_MAX, REQUEST_LIFE, RETURN_BYTES_MAX};
pub use desk::{Desk, DeskError, DeskSettings};
pub use filter::{NAME, RstreamAuth, RstreamAuthFactory};
pub use oidc::ProviderSettings;
pub use passwords::{
    Hash, HashError, PASSWORD_BYTES_MAX, PASSWORD_CHARS_MIN, SALT_BYTES, WAITING_MAX,
};
pub use serve::FORM_BYTES_MAX;
pub use session::{COOKIE_BYTES_MAX, ENDED_MAX, Login, Millis, Proof, SIGN_OUTS_MAX, Session};
pub use throttle::{ACCOUNT_TRIES_MAX, ADDRESS_TRIES_MAX, WINDOW};
pub use tunnel::CALLBACK_PATH;
pub use user::{Allow, IMAGE_BYTES_MAX, USER_TEXT_BYTES_MAX, User};

pub(crate) use codes::return_path;
pub(crate) use cookies::clear_session;
pub(crate) use desk::Visitor;
