//! SIGTERM and SIGINT ask to stop; a second one does not wait.

use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use crate::engine::{Stop, StopSource};

/// Asks to stop at the first SIGTERM or SIGINT; at the second the process ends at once, with what was not
/// committed left to its leases.
pub(super) fn stop_on_signal() -> Result<Stop, Failure> {
    let (source, stop) = StopSource::new();
    let cannot = |error: std::io::Error| Failure::could_not_work(format!("signals cannot be heard: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    tokio::spawn(async move {
        for is_first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if is_first {
                tracing::info!("asked to stop: what is in flight is finished; a second signal ends at once");
                source.stop();
            } else {
                std::process::exit(i32::from(super::exit::Exit::CouldNotWork.code()));
            }
        }
    });
    Ok(stop)
}
