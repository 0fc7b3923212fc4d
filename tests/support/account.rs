//! Local accounts, and signing in with one.

use adit_plugins::identity::rstream_auth::{Hash, SALT_BYTES};

use crate::browser::{Answer, Browser};

/// The file of two of them, `ada` and `bob`.
pub fn accounts() -> String {
    ["ada", "bob"]
        .map(|name| {
            let hash = Hash::of(&password(name), [7; SALT_BYTES]);
            format!(
                "[account.{name}]\npassword = '{}'\nfull-name = 'Dr {name}'\n\
                 email = '{name}@example.com'\ngroups = ['{name}s']\n",
                hash.as_str()
            )
        })
        .join("")
}

/// The password of one of them.
pub fn password(name: &str) -> String {
    format!("{name} has a password")
}

/// Opens the tunnel and signs in with an account; the answer is what comes of it.
pub async fn enter(browser: &mut Browser<'_>, host: &str, path: &str, name: &str) -> Answer {
    let page = browser.open(&browser.url(host, path)).await;
    assert_eq!(page.status, 200, "{page:#?}");
    assert!(page.url.contains("/rstream/auth?request="), "{page:#?}");
    browser.sign_in(&page, name, &password(name)).await
}
