//! How often passwords may be tried.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_filters::env::Store;

/// How many wrong passwords one address may send within [`WINDOW`]; IPv6 counts by /64.
pub const ADDRESS_TRIES_MAX: i64 = 10;

/// How many wrong passwords may be sent for one account within [`WINDOW`], from wherever: more than from one address, so
/// that one address alone locks nobody out.
pub const ACCOUNT_TRIES_MAX: i64 = 30;

/// How many answers of a provider one address may bring within [`WINDOW`]: each has the provider asked, right or wrong.
const ANSWERS_MAX: i64 = 120;

/// How long tries count, from the first.
pub const WINDOW: Duration = Duration::from_secs(5 * 60);

/// Counts tries.
pub(crate) struct Throttle {
    store: Arc<dyn Store>,
}

/// A try that was counted.
pub(crate) struct Try {
    address: String,
    account: String,
}

impl Throttle {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Counts a try before anything is compared, so that tries sent at once count too. None if there were too many.
    pub(crate) fn begin(&self, address: IpAddr, account: &str) -> Option<Try> {
        let one = Try {
            address: format!("address {}", network(address)),
            account: format!("account {account}"),
        };
        let over = |key: &str, limit: i64| {
            self.store
                .add(key, 1, WINDOW)
                .map_or(true, |tries| tries > limit)
        };
        // What one address may not try counts against no account: else it could lock out whom it likes.
        let is_over =
            over(&one.address, ADDRESS_TRIES_MAX) || over(&one.account, ACCOUNT_TRIES_MAX);
        (!is_over).then_some(one)
    }

    /// Counts an answer of a provider that an address brings. False if there were too many.
    pub(crate) fn answer(&self, address: IpAddr) -> bool {
        let key = format!("answers {}", network(address));
        let answers = self.store.add(&key, 1, WINDOW);
        answers.is_ok_and(|answers| answers <= ANSWERS_MAX)
    }

    /// Takes a try back: the password was right.
    pub(crate) fn succeeded(&self, one: &Try) {
        for key in [&one.address, &one.account] {
            // It can fail only for numbers that no count of tries reaches.
            let _ = self.store.add(key, -1, WINDOW);
        }
    }
}

/// What one visitor can choose its address from.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::env::fake::Fake;

    use super::*;

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn wrong_passwords_are_counted_by_address_and_account() {
        let fake = Fake::default();
        let throttle = Throttle::new(fake.env().store);
        for _ in 0..ADDRESS_TRIES_MAX {
            assert!(throttle.begin(at("2001:db8::1"), "ada").is_some());
        }
        // The same network, whatever the account; others still may.
        assert!(throttle.begin(at("2001:db8::2"), "bob").is_none());
        assert!(throttle.begin(at("2001:db8:0:1::1"), "ada").is_some());
        fake.clock.advance(WINDOW);
        assert!(throttle.begin(at("2001:db8::1"), "ada").is_some());
    }

    #[test]
    fn a_provider_is_asked_so_often_for_one_address() {
        let fake = Fake::default();
        let throttle = Throttle::new(fake.env().store);
        for _ in 0..ANSWERS_MAX {
            assert!(throttle.answer(at("192.0.2.1")));
        }
        assert!(!throttle.answer(at("192.0.2.1")) && throttle.answer(at("192.0.2.2")));
        fake.clock.advance(WINDOW);
        assert!(throttle.answer(at("192.0.2.1")));
    }

    #[test]
    fn an_account_is_not_locked_by_one_address() {
        let fake = Fake::default();
        let throttle = Throttle::new(fake.env().store);
        let many = |from: u8| {
            let tries =
                (0..400).filter_map(|_| throttle.begin(IpAddr::from([192, 0, 2, from]), "ada"));
            tries.count()
        };
        assert_eq!(many(1), 10);
        assert!(throttle.begin(at("198.51.100.1"), "ada").is_some());
        // Many together do: it is under attack.
        assert_eq!((many(2), many(3)), (10, 9));
        assert!(throttle.begin(at("198.51.100.2"), "ada").is_none());
        assert!(throttle.begin(at("198.51.100.2"), "bob").is_some());
    }

    #[test]
    fn right_passwords_do_not_count() {
        let fake = Fake::default();
        let throttle = Throttle::new(fake.env().store);
        for _ in 0..ADDRESS_TRIES_MAX * 5 {
            let one = throttle.begin(at("192.0.2.1"), "ada").unwrap();
            throttle.succeeded(&one);
        }
    }
}
