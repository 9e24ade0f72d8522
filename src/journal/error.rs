//! What can go wrong with the journal; no text holds a secret.

use std::io;
use std::path::{Path, PathBuf};

/// Why the journal cannot be opened or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// Another process has it open.
    #[error("the journal in `{folder}` is in use by another process: give each process a folder of its own")]
    Locked {
        /// Its folder.
        folder: PathBuf,
    },
    /// The journal was written with another key.
    #[error(
        "the journal `{file}` was written with another key: give that key; if it is lost, move the file away, and with it the tokens that only it holds"
    )]
    WrongKey {
        /// The journal.
        file: PathBuf,
    },
    /// The journal is there, its key is not.
    #[error(
        "the key `{key}` of the journal beside it is missing: put it back; if it is lost, move `journal.log` away, and with it the tokens that only it holds"
    )]
    KeyLost {
        /// The file of the key.
        key: PathBuf,
    },
    /// What should be a key is none.
    #[error("the key of the journal must be 32 bytes in base64 or hexadecimal (`openssl rand -hex 32`)")]
    NoKey,
    /// The file of the key can be read by others.
    #[error("the key `{key}` may be read by others (mode {mode:04o}): `chmod 600` it")]
    KeyExposed {
        /// The file of the key.
        key: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The journal has a format that this version does not know.
    #[error("the journal `{file}` was written by a newer version of perene: use that version, or move the file away")]
    Newer {
        /// The journal.
        file: PathBuf,
    },
    /// A file or the folder cannot be made or read.
    #[error("cannot open the journal at `{path}`: {reason}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The disk takes nothing.
    #[error("cannot write the journal: {reason}")]
    Unwritable {
        /// The system's reason.
        reason: String,
    },
    /// Larger than any answer of a provider.
    #[error("an entry of the journal has at most {} bytes, not {bytes}", super::record::PLAIN_BYTES_MAX)]
    TooLarge {
        /// The entry's size.
        bytes: usize,
    },
    /// The thread that writes has ended.
    #[error("the journal is closed")]
    Stopped,
}

impl JournalError {
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), reason: error.to_string().to_lowercase() }
    }

    pub(super) fn unwritable(error: &io::Error) -> Self {
        Self::Unwritable { reason: error.to_string().to_lowercase() }
    }
}
