//! Named steps at which a test may let the process die, as `kill -9` would. Without the feature `failpoints`, which no
//! shipped binary has, nothing of this is compiled.

/// The process dies here if the variable `PERENE_FAIL_AT` is `name`, or `name:n` at the nth time.
#[cfg(feature = "failpoints")]
pub(crate) fn fail_at(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static TIMES: AtomicU32 = AtomicU32::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("PERENE_FAIL_AT").ok()?;
        let (name, times) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), times.parse().ok()?))
    });
    if let Some((wanted, times)) = wanted
        && wanted == name
        && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == *times
    {
        std::process::abort();
    }
}

/// Nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn fail_at(_name: &str) {}
