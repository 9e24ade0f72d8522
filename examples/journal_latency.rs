//! How long an answer takes to the disk: `cargo run --release --example journal_latency -- [AT_ONCE] [ANSWERS] [FOLDER] [PENDING]`.
//!
//! Prints the percentiles of the time from the answer to the end of its `fdatasync`, for so many that write at once
//! while so many others are pending, and beside them a bare `fdatasync` of the same bytes on the same disk: what the
//! disk alone costs.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use perene::journal::{Entry, FileJournal, Journal};
use perene_policy::Secret;
use uuid::Uuid;

const TOKEN_BYTES: usize = 200;

fn entry(number: usize) -> Entry {
    let token = |kind: &str| Secret::new(format!("{kind}-{number:0TOKEN_BYTES$}"));
    Entry {
        table: "connections".to_owned(),
        id: number.to_string(),
        fence: Uuid::nil(),
        sent: token("a0"),
        sent_refresh: Some(token("r0")),
        token: token("a1"),
        refresh_token: Some(token("r1")),
        expires_at: Some(Timestamp::UNIX_EPOCH),
        received_at: Timestamp::UNIX_EPOCH,
    }
}

fn tell(what: &str, mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|share| ms(at(share)));
    println!("{what}: p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms");
    at(0.99)
}

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "it measures")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let at_once: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    let answers: usize = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let pending: usize = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let folder = tempfile::tempdir_in(folder)?;
    let journal = FileJournal::open(folder.path(), None)?;

    for first in (0..pending).step_by(1000) {
        let some = (first..pending.min(first + 1000)).map(|number| journal.write(entry(number)));
        futures_util::future::try_join_all(some).await?;
    }
    let writers = (0..at_once).map(|writer| {
        let journal = journal.clone();
        tokio::spawn(async move {
            let mut took = Vec::with_capacity(answers / at_once);
            for number in (writer..answers).step_by(at_once) {
                let began = Instant::now();
                let id = journal.write(entry(number)).await.expect("the disk takes it");
                took.push(began.elapsed());
                journal.forget(&[id]).await.expect("the journal is open");
            }
            took
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut took = Vec::with_capacity(answers);
    for writer in writers {
        took.extend(writer.await?);
    }

    let mut file = std::fs::File::create(folder.path().join("bare"))?;
    file.write_all(&vec![0; 4 << 20])?;
    file.sync_all()?;
    let bare = (0..1000)
        .map(|number| {
            let began = Instant::now();
            std::os::unix::fs::FileExt::write_all_at(&file, &[1; 1024], number * 1024)?;
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect::<std::io::Result<Vec<_>>>()?;

    let kept = tell(&format!("answer to disk, {at_once} at once, {answers} answers, {pending} others pending"), took);
    let bare = tell("a bare fdatasync, one at a time, 1000 times", bare);
    println!("ratio at p99: {:.2}", kept.as_secs_f64() / bare.as_secs_f64());
    Ok(())
}
