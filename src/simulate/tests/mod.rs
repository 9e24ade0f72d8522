//! The simulation itself: the same seed gives the same bytes, promises hold, and bugs that are planted are caught.

#[cfg(feature = "planted-bugs")]
mod planted;
mod promises;

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use super::{FaultList, Request};

/// A file in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn request(connections: usize, days: u32, seed: u64, faults: &str) -> Request {
    let faults = FaultList::parse(faults).expect("a list of faults");
    Request { connections, days, seed, faults, only: None, stop_at_first: false }
}
