//! Section `journal`: where answers are kept until the database has confirmed them.

use std::path::{Path, PathBuf};

use perene_policy::Secret;

use super::database::DatabaseUrl;
use super::found::Found;
use super::layer::Environment;

/// Section `journal`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Journal {
    /// Key `journal.folder`. Default: beside an SQLite file; for PostgreSQL `perene/journal` in the state folder of
    /// the service or the user.
    pub folder: Option<PathBuf>,
    /// Key `journal.key`: 32 bytes in base64 or hexadecimal. Without it a key is made at first use, beside the journal.
    pub key: Option<Secret>,
    /// Where such things belong on this machine, if the environment says so.
    state: Option<PathBuf>,
}

impl Journal {
    /// The folder for journals of this database; `None` if there is no place for it.
    pub fn folder_for(&self, url: &DatabaseUrl) -> Option<PathBuf> {
        match (&self.folder, url) {
            (Some(folder), _) => Some(folder.clone()),
            (None, DatabaseUrl::Sqlite(file)) => Some(beside(file)),
            (None, DatabaseUrl::Postgres(_)) => self.state.as_ref().map(|state| state.join("journal")),
        }
    }
}

/// Not `FILE-journal`, which is SQLite's own.
fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push("-perene");
    file.with_file_name(name)
}

pub(super) fn read(found: &Found<'_>, env: &Environment) -> Journal {
    let key = found.read_secret("journal.key", |key| {
        let is_key = crate::journal::is_key(key);
        is_key
            .then(|| key.clone())
            .ok_or("must be 32 bytes in base64 or hexadecimal: `openssl rand -hex 32`".to_owned())
    });
    Journal { folder: found.path("journal.folder"), key, state: state(env) }
}

/// What systemd gives a service, or what the XDG specification gives a user.
/// <https://specifications.freedesktop.org/basedir-spec/latest/>
fn state(env: &Environment) -> Option<PathBuf> {
    let folder = |name: &str| env.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // systemd gives a list, separated by colons.
    let service = env.get("STATE_DIRECTORY").and_then(|list| list.split(':').next()).map(PathBuf::from);
    service
        .filter(|path| path.is_absolute())
        .or_else(|| folder("XDG_STATE_HOME").map(|path| path.join("perene")))
        .or_else(|| folder("HOME").map(|path| path.join(".local/state/perene")))
}
