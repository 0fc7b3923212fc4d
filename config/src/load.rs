//! The one place of this crate that opens files.

use std::io::{self, Read};
use std::path::Path;

use crate::secret::Secret;

/// Longest secret read from a file, in bytes.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The text of the configuration at `path`.
pub(crate) fn text(path: &Path) -> io::Result<String> {
    let limit = crate::tree::TEXT_BYTES_MAX as u64 + 1;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(limit)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The secret in the file at `path` without the line end an editor leaves, and whether others than
/// its owner may read it.
pub(crate) fn secret(path: &Path) -> io::Result<(Secret<String>, bool)> {
    let file = std::fs::File::open(path)?;
    let open_to_others = open_to_others(&file.metadata()?);
    let mut text = String::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text)?;
    let text = Secret::new(text);
    if text.expose().len() as u64 > SECRET_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("longer than {SECRET_BYTES_MAX} bytes, which no secret is"),
        ));
    }
    let trimmed = text.expose().trim_end_matches(['\n', '\r']).to_owned();
    Ok((Secret::new(trimmed), open_to_others))
}

#[cfg(unix)]
fn open_to_others(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;

    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn open_to_others(_metadata: &std::fs::Metadata) -> bool {
    false
}
