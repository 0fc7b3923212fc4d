#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::fs;
use std::net::SocketAddr;

use adit_filters::env::fake::Fake;
use adit_filters::{
    Chain, Connected, Connection, ConnectionInfo, Decision, Placed, Transport, TunnelInfo,
};

use super::writer::Row;
use super::*;

const GERMAN: Row<'_> = Row {
    country: "DE",
    continent: "EU",
    region: "BE",
    asn: 64500,
};
const FRENCH: Row<'_> = Row {
    country: "FR",
    continent: "EU",
    region: "",
    asn: 64501,
};
const NAMELESS: Row<'_> = Row {
    country: "",
    continent: "",
    region: "",
    asn: 64502,
};

fn rows() -> [(&'static str, Row<'static>); 5] {
    [
        ("192.0.2.0/25", GERMAN),
        ("192.0.2.128/25", FRENCH),
        ("2001:db8:1::/48", GERMAN),
        ("198.51.100.0/24", NAMELESS),
        (
            "203.0.113.7/32",
            Row {
                country: "US",
                continent: "NA",
                region: "",
                asn: 64503,
            },
        ),
    ]
}

/// A database in a folder of its own.
fn written() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("places.mmdb");
    fs::write(&path, writer::database(&rows())).unwrap();
    (folder, path)
}

fn filter(table: &str, database: &Arc<Database>) -> Hooks {
    let section = Section::parse("engine.toml", table).unwrap();
    let shared = Some(Arc::clone(database));
    let factory = GeoIpFactory::new(Databases::default().with_shared(shared));
    factory.build(&section, &mut Fake::default().env()).unwrap()
}

/// A connection through a chain of these filters.
async fn connect(chain: &Chain, peer: &str) -> Connected {
    let info = ConnectionInfo {
        id: 1,
        peer: SocketAddr::new(peer.parse().unwrap(), 4000),
        transport: Transport::Tls,
        hello: None,
        tls: None,
    };
    let tunnel = Arc::new(TunnelInfo::default());
    chain.connect(Arc::new(info), tunnel).await
}

fn chain(hooks: &Hooks) -> Chain {
    Chain::compile(vec![Placed::new("geoip", hooks.clone())]).unwrap()
}

async fn visit(hooks: &Hooks, peer: &str) -> (String, Option<Location>) {
    let (outcome, connection) = match connect(&chain(hooks), peer).await {
        Connected::Admitted(connection) => ("pass".to_owned(), connection),
        Connected::Refused {
            refusal,
            connection,
        } => (refusal.reason.to_string(), connection),
        Connected::Close { .. } => panic!(),
    };
    (outcome, connection.fact::<Location>().cloned())
}

/// A request on a connection that was let in.
async fn ask(chain: &Chain, connection: &Arc<Connection>) -> String {
    let mut exchange = chain.exchange(Arc::clone(connection));
    let request = http::Request::get("https://a.example/").body(()).unwrap();
    let mut head = request.into_parts().0;
    match chain.request(&mut head, &mut exchange, None).await {
        Decision::Pass { .. } => "pass".to_owned(),
        Decision::Refuse(refusal) => refusal.reason.to_string(),
        decision => panic!("{decision:?}"),
    }
}

#[tokio::test]
async fn visitors_pass_from_where_they_may_and_nowhere_else() {
    let (_folder, path) = written();
    let database = Arc::new(Database::open(&path).unwrap());
    let (german, french, us) = ("192.0.2.1", "192.0.2.200", "203.0.113.7");
    let (nameless, unknown, private) = ("198.51.100.1", "203.0.113.8", "10.0.0.1");
    let cases: &[(&str, &[&str], &[&str])] = &[
        (
            "allow = ['DE']",
            &[german, "::ffff:192.0.2.1", "2001:db8:1::1"],
            &[french, us, nameless, unknown, private, "2001:db8:2::1"],
        ),
        ("allow = ['de', 'fr']", &[german, french], &[us]),
        (
            "allow = ['continent:EU']",
            &[german, french],
            &[us, unknown],
        ),
        ("allow = ['AS64500', 'US']", &[german, us], &[french]),
        (
            "allow = ['continent:EU']\ndeny = ['FR']",
            &[german],
            &[french, us],
        ),
        // A deny list alone says nothing of those nobody knows.
        (
            "deny = ['DE']",
            &[french, us, nameless, unknown, private],
            &[german, "2001:db8:1::9"],
        ),
        ("deny = ['AS64502']", &[german, unknown], &[nameless]),
    ];
    for (table, inside, outside) in cases {
        let hooks = filter(table, &database);
        for peer in *inside {
            assert_eq!(visit(&hooks, peer).await.0, "pass", "{table} {peer}");
        }
        for peer in *outside {
            assert_eq!(visit(&hooks, peer).await.0, "country", "{table} {peer}");
        }
    }
    let (_, location) = visit(&filter("deny = ['US']", &database), german).await;
    let location = location.unwrap();
    assert_eq!(location.country.as_deref(), Some("DE"));
    assert_eq!(
        (location.continent.as_deref(), location.asn),
        (Some("EU"), Some(64500))
    );
}

// edge-behaviour X18
#[tokio::test]
async fn without_its_database_it_refuses_and_with_it_it_lets_in_again() {
    let (_folder, path) = written();
    let database = Arc::new(Database::open(&path).unwrap());
    for table in ["allow = ['DE']", "deny = ['US']"] {
        let hooks = filter(table, &database);
        let chain = chain(&hooks);
        let Connected::Admitted(live) = connect(&chain, "192.0.2.1").await else {
            panic!("{table}");
        };
        assert_eq!(ask(&chain, &live).await, "pass");
        fs::remove_file(&path).unwrap();
        database.look(); // it is gone
        assert_eq!(ask(&chain, &live).await, "pass");
        database.look(); // and stays so
        assert_eq!(visit(&hooks, "192.0.2.1").await.0, "unavailable");
        assert_eq!(ask(&chain, &live).await, "unavailable");
        fs::write(&path, writer::database(&rows())).unwrap();
        database.look(); // it is there
        assert_eq!(visit(&hooks, "192.0.2.1").await.0, "unavailable");
        database.look(); // and stays as it is
        assert_eq!(visit(&hooks, "192.0.2.1").await.0, "pass");
        assert_eq!(ask(&chain, &live).await, "pass");
    }
}

#[tokio::test]
async fn a_changed_database_counts_on_live_connections_and_a_broken_one_does_not() {
    let (_folder, path) = written();
    let database = Arc::new(Database::open(&path).unwrap());
    let hooks = filter("allow = ['DE']", &database);
    let chain = chain(&hooks);
    let Connected::Admitted(live) = connect(&chain, "192.0.2.1").await else {
        panic!();
    };
    let whole = writer::database(&rows());
    for half in [&b"half"[..], &whole[..whole.len() / 2]] {
        fs::write(&path, half).unwrap();
        for _ in 0..3 {
            database.look();
            assert_eq!(visit(&hooks, "192.0.2.1").await.0, "pass");
            assert_eq!(ask(&chain, &live).await, "pass");
        }
    }
    fs::write(&path, writer::database(&[("192.0.2.0/24", FRENCH)])).unwrap();
    database.look();
    database.look();
    assert_eq!(visit(&hooks, "192.0.2.1").await.0, "country");
    assert_eq!(ask(&chain, &live).await, "country");
    fs::write(&path, &whole).unwrap();
    database.look();
    database.look();
    assert_eq!(ask(&chain, &live).await, "pass");
}

#[tokio::test]
async fn who_is_refused_is_located_for_the_log() {
    let (_folder, path) = written();
    let database = Arc::new(Database::open(&path).unwrap());
    let (outcome, location) = visit(&filter("deny = ['DE']", &database), "192.0.2.1").await;
    assert_eq!(outcome, "country");
    let location = location.unwrap();
    assert_eq!(location.country.as_deref(), Some("DE"));
    assert_eq!(location.region.as_deref(), Some("BE"));
    assert_eq!(location.continent.as_deref(), Some("EU"));
    assert_eq!(location.asn, Some(64500));
}

#[tokio::test]
async fn filters_over_different_databases_each_ask_their_own() {
    let (folder, path) = written();
    let networks = folder.path().join("networks.mmdb");
    let row = Row {
        asn: 64999,
        ..NAMELESS
    };
    fs::write(&networks, writer::database(&[("192.0.2.0/24", row)])).unwrap();
    let database = Arc::new(Database::open(&path).unwrap());
    for (own, outcome) in [("AS64999", "pass"), ("AS64500", "country")] {
        let table = format!("allow = ['{own}']\ndatabase = {networks:?}");
        let hooks = [
            filter("allow = ['DE']", &database),
            filter(&table, &database),
        ];
        let placed = hooks.map(|hooks| Placed::new("geoip", hooks)).to_vec();
        let chain = Chain::compile(placed).unwrap();
        match connect(&chain, "192.0.2.1").await {
            Connected::Admitted(connection) => {
                assert_eq!(outcome, "pass");
                assert_eq!(connection.fact::<Location>().unwrap().asn, Some(64500));
                assert_eq!(ask(&chain, &connection).await, "pass");
            }
            Connected::Refused { refusal, .. } => assert_eq!(refusal.reason.as_str(), outcome),
            Connected::Close { .. } => panic!(),
        }
    }
}

#[test]
fn a_file_is_read_once_and_watched_until_nobody_needs_it() {
    let (folder, path) = written();
    let fake = Fake::default();
    let databases = Databases::default();
    let one = databases.open(&path, &fake.env()).unwrap();
    let reload = databases.with(Unusable::Mistake);
    let other = reload.open(&path, &fake.env()).unwrap();
    assert!(Arc::ptr_eq(&one, &other));
    let mut watchers = fake.jobs.take_blocking();
    assert_eq!(watchers.len(), 1);
    drop((one, other));
    // It ends by itself.
    let (name, watch) = watchers.remove(0);
    assert_eq!(name, "geoip");
    watch();
    // What cannot be used is a mistake, or awaited.
    let nothing = folder.path().join("nothing.mmdb");
    let error = databases.open(&nothing, &fake.env()).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    let starting = databases.with(Unusable::Awaited);
    let awaited = starting.open(&nothing, &fake.env()).unwrap();
    let error = awaited.locate("192.0.2.1".parse().unwrap()).unwrap_err();
    assert!(matches!(error, DatabaseError::Absent { .. }), "{error}");
}

#[test]
fn a_watcher_looks_by_itself() {
    let (_folder, path) = written();
    let database = Arc::new(Database::open(&path).unwrap());
    assert_eq!(database.path(), path);
    let fake = Fake::default();
    let databases = Databases::default();
    let watched = databases.open(&path, &fake.env()).unwrap();
    let (_, watch) = fake.jobs.take_blocking().remove(0);
    std::thread::scope(|scope| {
        scope.spawn(watch);
        fs::remove_file(&path).unwrap();
        while watched.locate("192.0.2.1".parse().unwrap()).is_ok() {
            std::thread::yield_now();
        }
        drop(watched);
    });
}

#[test]
fn garbage_is_no_database() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mmdb");
    assert!(matches!(
        Database::open(&path),
        Err(DatabaseError::Read { .. })
    ));
    let whole = writer::database(&rows());
    for bytes in [
        &b""[..],
        b"garbage",
        &whole[whole.len() / 2..whole.len() / 2 + 40],
    ] {
        fs::write(&path, bytes).unwrap();
        let error = Database::open(&path).unwrap_err();
        assert!(matches!(error, DatabaseError::Invalid { .. }), "{error}");
    }
}

// Nothing of what a database says is believed beyond its bounds, whatever byte of it is wrong.
#[test]
fn a_damaged_database_knows_nothing_or_something_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.mmdb");
    let whole = writer::database(&rows());
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0xff;
        fs::write(&path, bytes).unwrap();
        if let Ok(database) = Database::open(&path) {
            for address in ["192.0.2.1", "192.0.2.200", "2001:db8:1::1", "10.0.0.1"] {
                let _ = database.locate(address.parse().unwrap());
            }
        }
    }
}

#[test]
fn lists_are_bounded_and_must_say_something() {
    let many = vec![Place::Asn(1); PLACES_MAX + 1];
    let wrong = |allow, deny| Rules::new(allow, deny).err().map(|error| error.key);
    assert_eq!(wrong(None, vec![]), Some(None));
    assert_eq!(wrong(Some(vec![]), vec![]), Some(Some("allow".to_owned())));
    assert_eq!(wrong(None, many.clone()), Some(Some("deny".to_owned())));
    assert_eq!(wrong(Some(many), vec![]), Some(Some("allow".to_owned())));
    assert_eq!(wrong(Some(vec![Place::Asn(1); PLACES_MAX]), vec![]), None);
}

#[test]
fn a_filter_without_any_database_is_a_mistake() {
    let section = Section::parse("engine.toml", "allow = ['DE']").unwrap();
    let built = GeoIpFactory::default().build(&section, &mut Fake::default().env());
    let problems = built.unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "engine.toml:1:1: there is no database: set `geoip.database` for the engine, or `database` here"
    );
}

#[test]
fn places_are_countries_continents_and_networks() {
    for (text, place) in [
        ("de", Place::Country("DE".into())),
        ("AS", Place::Country("AS".into())),
        ("as64500", Place::Asn(64500)),
        ("continent:eu", Place::Continent("EU".into())),
    ] {
        assert_eq!(text.parse(), Ok(place), "{text}");
    }
    for (text, right) in [("UK", "`GB`"), ("eu", "`continent:EU`")] {
        let error = text.parse::<Place>().unwrap_err();
        assert!(error.to_string().ends_with(right), "{error}");
    }
    for text in [
        "",
        "D",
        "DEU",
        "D1",
        "ASx",
        "AS99999999999",
        "continent:XX",
        "continent:",
        "EU-DE",
    ] {
        assert!(text.parse::<Place>().is_err(), "{text}");
    }
}
