//! Where a visitor is.

use std::net::IpAddr;

use adit_filters::Location;
use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

/// What is read of a record, in the layout of MaxMind's databases of countries, cities and networks.
#[derive(Default, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Place<'a>>,
    #[serde(borrow)]
    continent: Option<Place<'a>>,
    #[serde(borrow)]
    subdivisions: Option<Vec<Place<'a>>>,
    autonomous_system_number: Option<u32>,
}

#[derive(Deserialize)]
struct Place<'a> {
    #[serde(alias = "iso_code")]
    code: Option<&'a str>,
}

/// What the database says of an address. Only the country the address itself is in counts: where its network is
/// registered (`registered_country`) says nothing of the visitor.
pub(super) fn read(reader: &Reader<Vec<u8>>, address: IpAddr) -> Result<Location, MaxMindDbError> {
    if address.is_ipv6() && reader.metadata().ip_version == 4 {
        // A database of IPv4 alone knows nothing of it, which is no mistake in the database.
        return Ok(Location::default());
    }
    let record: Record<'_> = reader.lookup(address)?.decode()?.unwrap_or_default();
    let code = |place: Option<&Place<'_>>| Some(place?.code?.to_ascii_uppercase());
    let regions = record.subdivisions.unwrap_or_default();
    Ok(Location {
        country: code(record.country.as_ref()),
        continent: code(record.continent.as_ref()),
        region: code(regions.first()),
        asn: record.autonomous_system_number,
    })
}
