//! The key: given, or made at first use; never replaced.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use perene_policy::Secret;
use zeroize::Zeroizing;

use super::disk::{Disk, Folder};
use super::error::JournalError;
use super::record::{KEY_BYTES, Key};

type Bytes = Zeroizing<[u8; KEY_BYTES]>;

/// Reads a key that was given. `None` if it is none.
pub(super) fn parse(text: &Secret) -> Option<Key> {
    bytes_of(text.expose().trim()).map(|bytes| Key::new(&bytes))
}

/// The folder's own key. It is made only where there is no journal yet: a new key for an old journal would
/// read as damage what is sound.
pub(super) fn own(folder: &Folder) -> Result<Key, JournalError> {
    let path = folder.path("journal.key");
    let wrong = |error: &std::io::Error| JournalError::unreadable(&path, error);
    let mut file = match OpenOptions::new().read(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if folder.log().exists() {
                return Err(JournalError::KeyLost { key: path });
            }
            let bytes = random()?;
            let text = hex(bytes.as_ref());
            folder.put("journal.key", text.as_bytes()).map_err(|error| wrong(&error))?;
            return Ok(Key::new(&bytes));
        }
        Err(error) => return Err(wrong(&error)),
    };
    let mode = file.metadata().map_err(|error| wrong(&error))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(JournalError::KeyExposed { key: path, mode });
    }
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 2));
    file.by_ref().take(1024).read_to_string(&mut text).map_err(|error| wrong(&error))?;
    bytes_of(text.trim()).map(|bytes| Key::new(&bytes)).ok_or(JournalError::NoKey)
}

fn random() -> Result<Bytes, JournalError> {
    let mut bytes = Bytes::default();
    aws_lc_rs::rand::fill(bytes.as_mut())
        .map_err(|_| JournalError::Unwritable { reason: "the system gives no random bytes".to_owned() })?;
    Ok(bytes)
}

fn bytes_of(text: &str) -> Option<Bytes> {
    let decoded = if text.len() == 2 * KEY_BYTES {
        (0..KEY_BYTES).map(|at| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()).collect::<Option<Vec<u8>>>()
    } else {
        [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(text).ok())
    };
    let decoded = Zeroizing::new(decoded?);
    Some(Zeroizing::new(decoded.as_slice().try_into().ok()?))
}

fn hex(bytes: &[u8]) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 2 + 1));
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_in_any_usual_writing() {
        let bytes: Vec<u8> = (200..232).collect();
        let written = [STANDARD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes), hex(&bytes).to_string()];
        for text in &written {
            assert_eq!(bytes_of(text.trim()).as_deref().map(<[u8; 32]>::as_slice), Some(bytes.as_slice()), "{text}");
        }
        for text in ["", "a passphrase", &written[0][4..], &"g".repeat(64), &"é".repeat(32)] {
            assert!(bytes_of(text).is_none(), "{text}");
        }
    }
}
