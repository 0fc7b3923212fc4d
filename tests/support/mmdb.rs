//! Writes small MaxMind databases for tests
//! ([format 2.0](https://maxmind.github.io/MaxMind-DB/)).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "support of tests: a failure here is the failure of the test"
)]

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// What a record says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row<'a> {
    /// `country.iso_code`.
    pub country: &'a str,
    /// `continent.code`.
    pub continent: &'a str,
    /// `subdivisions[0].iso_code`.
    pub region: &'a str,
    /// `autonomous_system_number`.
    pub asn: u32,
}

/// A database of these networks; none may contain another.
#[must_use]
pub fn database(rows: &[(&str, Row<'_>)]) -> Vec<u8> {
    let mut nodes: Vec<[Link; 2]> = vec![[Link::Nothing; 2]];
    let mut data = Vec::new();
    for (network, row) in rows {
        let network: IpNet = network.parse().unwrap();
        // IPv4 lives at ::/96.
        let (address, bits) = match network.addr() {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), network.prefix_len() + 96),
            IpAddr::V6(v6) => (
                u128::from(Ipv6Addr::from(v6.octets())),
                network.prefix_len(),
            ),
        };
        let mut at = 0;
        for bit in 0..bits {
            let side = usize::from(address >> (127 - bit) & 1 == 1);
            if bit + 1 == bits {
                nodes[at][side] = Link::Data(data.len());
            } else if let Link::Node(next) = nodes[at][side] {
                at = next;
            } else {
                nodes.push([Link::Nothing; 2]);
                let next = nodes.len() - 1;
                nodes[at][side] = Link::Node(next);
                at = next;
            }
        }
        record(&mut data, *row);
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for link in nodes.iter().flatten() {
        let value = match link {
            Link::Nothing => count,
            Link::Node(at) => *at,
            Link::Data(at) => count + 16 + at,
        };
        file.extend_from_slice(&u32::try_from(value).unwrap().to_be_bytes());
    }
    file.extend_from_slice(&[0; 16]);
    file.extend_from_slice(&data);
    file.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    map(&mut file, 9);
    for (key, value) in [
        ("binary_format_major_version", 2u16),
        ("binary_format_minor_version", 0),
        ("record_size", 32),
        ("ip_version", 6),
    ] {
        text(&mut file, key);
        file.push(5 << 5 | 2);
        file.extend_from_slice(&value.to_be_bytes());
    }
    text(&mut file, "node_count");
    number(&mut file, u32::try_from(count).unwrap());
    text(&mut file, "build_epoch");
    // A number of eight bytes: extended type 9.
    file.extend_from_slice(&[8, 2]);
    file.extend_from_slice(&1_700_000_000u64.to_be_bytes());
    text(&mut file, "database_type");
    text(&mut file, "Test");
    text(&mut file, "languages");
    // An array with nothing in it: extended type 11.
    file.extend_from_slice(&[0, 4]);
    text(&mut file, "description");
    map(&mut file, 0);
    file
}

#[derive(Clone, Copy)]
enum Link {
    Nothing,
    Node(usize),
    Data(usize),
}

fn record(out: &mut Vec<u8>, row: Row<'_>) {
    map(out, 3 + u8::from(!row.region.is_empty()));
    for (name, key, value) in [
        ("country", "iso_code", row.country),
        ("continent", "code", row.continent),
    ] {
        text(out, name);
        map(out, u8::from(!value.is_empty()));
        if !value.is_empty() {
            text(out, key);
            text(out, value);
        }
    }
    if !row.region.is_empty() {
        text(out, "subdivisions");
        // An array of one: extended type 11.
        out.extend_from_slice(&[1, 4]);
        map(out, 1);
        text(out, "iso_code");
        text(out, row.region);
    }
    text(out, "autonomous_system_number");
    number(out, row.asn);
}

fn map(out: &mut Vec<u8>, pairs: u8) {
    out.push(7 << 5 | pairs);
}

fn text(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap();
    // From 29 bytes on the length has a byte of its own.
    match length {
        0..29 => out.push(2 << 5 | length),
        _ => out.extend_from_slice(&[2 << 5 | 29, length - 29]),
    }
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, number: u32) {
    out.push(6 << 5 | 4);
    out.extend_from_slice(&number.to_be_bytes());
}
