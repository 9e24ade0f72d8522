//! The folder on disk, behind a trait so that tests can pull the plug.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::JournalError;

/// The log as bytes that can be lost until [`Disk::sync`] or [`Disk::take_next`] has returned.
pub(super) trait Disk: Send {
    /// Where the log is, for messages.
    fn log(&self) -> &Path;

    /// The whole log; `None` if there is none yet.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>>;

    /// Writes into the log, which grows if need be.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all that was written is on the medium.
    fn sync(&mut self) -> io::Result<()>;

    /// Begins the next log, empty, beside this one.
    fn begin_next(&mut self) -> io::Result<()>;

    /// Writes into the next log, which grows if need be.
    fn write_next(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Returns when all of the next log is on the medium.
    fn sync_next(&mut self) -> io::Result<()>;

    /// Puts the next log, which must be on the medium, in the place of this one: after a power cut there is the
    /// one or the other.
    fn take_next(&mut self) -> io::Result<()>;

    /// Gives up the next log, if there is one, and the bytes that it takes.
    fn drop_next(&mut self);

    /// Puts another log in the place of this one, all at once.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let replaced = self
            .begin_next()
            .and_then(|()| self.write_next(0, bytes))
            .and_then(|()| self.sync_next())
            .and_then(|()| self.take_next());
        replaced.inspect_err(|_| self.drop_next())
    }

    /// Keeps bytes in a file of their own, which is new.
    fn keep_aside(&mut self, bytes: &[u8]) -> io::Result<PathBuf>;
}

/// A folder that this process has to itself.
#[derive(Debug)]
pub(super) struct Folder {
    folder: PathBuf,
    log: PathBuf,
    file: Option<File>,
    next: Option<File>,
    /// Held as long as this lives; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is missing, and locks it.
    pub(super) fn open(folder: &Path) -> Result<Self, JournalError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| JournalError::unreadable(folder, &error))?;
        let path = folder.join("journal.lock");
        let lock = options().create(true).truncate(false).open(&path);
        let lock = lock.map_err(|error| JournalError::unreadable(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Locked { folder: folder.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(JournalError::unreadable(&path, &error)),
        }
        Ok(Self { folder: folder.to_owned(), log: folder.join("journal.log"), file: None, next: None, _lock: lock })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a whole file: there is the old one or the new one, never a part.
    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let new = self.path(&format!("{name}.new"));
        let put = || {
            let mut file = options().create(true).truncate(true).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            self.rename(&new, &self.path(name))
        };
        put().inspect_err(|_| drop(std::fs::remove_file(&new)))
    }

    fn rename(&self, old: &Path, new: &Path) -> io::Result<()> {
        std::fs::rename(old, new)?;
        // The name is on disk only when the folder is.
        File::open(&self.folder)?.sync_all()
    }

    fn next_log(&self) -> PathBuf {
        self.path("journal.log.new")
    }
}

impl Disk for Folder {
    fn log(&self) -> &Path {
        &self.log
    }

    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        // On a read-only disk what is pending can still be read, and so replayed.
        let file = options().open(&self.log).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Err(error),
            _ => File::open(&self.log),
        });
        let mut file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        self.file = Some(file);
        Ok(Some(bytes))
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.as_ref().ok_or(ErrorKind::NotFound)?.write_all_at(bytes, at)
    }

    fn sync(&mut self) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(ErrorKind::NotFound)?;
        file.sync_data()?;
        // What goes into a file that has no name any more is gone with this process.
        match file.metadata()?.nlink() {
            0 => Err(io::Error::new(ErrorKind::NotFound, "its file was removed under a running process")),
            _ => Ok(()),
        }
    }

    fn begin_next(&mut self) -> io::Result<()> {
        self.next = Some(options().create(true).truncate(true).open(self.next_log())?);
        Ok(())
    }

    fn write_next(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.next.as_ref().ok_or(ErrorKind::NotFound)?.write_all_at(bytes, at)
    }

    fn sync_next(&mut self) -> io::Result<()> {
        self.next.as_ref().ok_or(ErrorKind::NotFound)?.sync_data()
    }

    fn take_next(&mut self) -> io::Result<()> {
        let next = self.next.take().ok_or(ErrorKind::NotFound)?;
        self.rename(&self.next_log(), &self.log)?;
        self.file = Some(next);
        Ok(())
    }

    fn drop_next(&mut self) {
        self.next = None;
        // If it stays, it is overwritten by the one that comes after it.
        let _ = std::fs::remove_file(self.next_log());
    }

    fn keep_aside(&mut self, bytes: &[u8]) -> io::Result<PathBuf> {
        let free = (1..1000).map(|number| self.path(&format!("journal.damaged-{number}"))).find(|path| !path.exists());
        let path = free.ok_or_else(|| io::Error::other("there are 999 of `journal.damaged-N`: take them away"))?;
        let mut file = options().create_new(true).open(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        File::open(&self.folder)?.sync_all()?;
        Ok(path)
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}
