//! What Perene decides, and nothing else: no clock, no socket, no database, no `async`.
//!
//! Every function here is a function of its arguments. Time comes in as `now`, an answer of a provider
//! comes in as bytes, and what leaves is plain data: an [`Outcome`], a [`Decision`], the next step of an
//! [`Exchange`]. The shells in the root package carry these out.
//!
//! The way of one token through this crate:
//!
//! 1. [`due`] says which rows are sent, and when a token is too young.
//! 2. [`Exchange`] says which call comes next: the refresh, a quick further try, a second look, or none.
//! 3. [`answer`] reads what came back: [`answer::judge`] finds the first rule that fits.
//! 4. [`decide()`] turns the conclusion into what is written, remembered and told.
//! 5. [`replay()`] says what becomes of an answer that could not be written when it came.
//!
//! Above single connections stand [`app`] (what is known of one app at a provider: its limits, its circuit,
//! its breadth brake) and [`schedule`] (when a run starts).

pub mod answer;
pub mod app;
pub mod backoff;
pub mod connection;
pub mod decide;
pub mod due;
pub mod exchange;
pub mod grant;
pub mod outcome;
pub mod planted;
pub mod redact;
pub mod replay;
pub mod schedule;
pub mod secret;
pub mod settings;
pub mod warning;

#[cfg(test)]
mod testing;

pub use answer::{Answer, NoAnswer, Verdict};
pub use connection::{Connection, Incident, Memory, State, TokenUse};
pub use decide::{
    Attempts, Context, Counting, Decision, ErrorText, Event, EventKind, Notice, NoticeKind, RowWrite, decide, intent,
    lapse, reconcile, superseded, take_back,
};
pub use exchange::{Call, Conclusion, Endpoint, Exchange, Step, Terms};
pub use grant::{Class, Grant};
pub use outcome::{Counted, Outcome, Scope};
pub use replay::{KeptAnswer, Replay, replay};
pub use secret::{Fingerprint, Secret};
pub use settings::Settings;
