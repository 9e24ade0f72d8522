//! Bugs that are planted on purpose, one at a time, to see whether the simulation catches them. Without the feature
//! `planted-bugs`, which no shipped binary has, none can be planted, and each question is a constant.

macro_rules! bugs {
    ($($bug:ident $text:literal;)*) => {
        /// A bug that can be planted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $text] $bug),*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),*];

            /// What is wrong.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$bug => $text),*
                }
            }
        }
    };
}

bugs! {
    NoCompareAndSwap "a write does not compare the token that was sent";
    NoJournal "an answer is not kept before it is committed";
    NoIntent "a strict token is sent without a note that it may be spent";
    ReplayNever "what is kept is never replayed";
    LeaseTooShort "a lease lapses while a call is under way";
    LocalClock "the machine's clock decides what is due";
    WindowTooNarrow "what is due in the last day of the window is left out";
    WindowTooWide "what is due a day after the window is sent";
    ZoneIgnored "runs start by the time of Greenwich";
    RunLeftOut "every other run is left out";
    RetriesNotRemembered "the retry series begins anew each time";
    RetryBeyondTheNextRun "a retry is put off for days";
    RetryWithoutTime "a failed connection has no next try";
    LostOutboxRow "a warning has no message for the first channel";
    SentNotNoted "that a message was delivered is not written down";
    RecoveredNotSent "nobody hears that an incident is over";
    WarningNotRemembered "that the customer was warned is forgotten";
    WarnedTooLate "little time left is no reason to warn";
    FlagCleared "a flag is lowered although another connection needs it";
    NoBrake "many refusals alike are believed";
    NoCircuit "a provider that is down is called on and on";
    CircuitNeverCloses "a provider that is back is not called again";
    NoSecondLook "the first refusal is believed";
    AttemptsOnRetries "retries between runs count as attempts";
    AttemptsNotCleared "a success leaves the attempts as they are";
    ExpiryFromAfter "the new life is counted from after the answer";
    RetryAfterIgnored "the time that a provider asks to wait is not waited";
    ExpiredSent "expired rows are sent";
    YoungSent "tokens under a day of age are sent";
    NotExtendedIsRefreshed "an expiry that does not move counts as refreshed";
    RefusedNeverProbed "who was refused once is never asked for again";
    RowSkipped "the last row of a page is skipped";
    PassStopsAtBadRow "a row that cannot be sent ends the pass";
    SecretInText "what a provider says is stored as it is";
    ImplausibleStored "whatever stands for a token is stored as one";
    RefreshTokenDropped "the new refresh token is not stored";
    SweepMissing "what is remembered is never looked at";
    LapseUnseen "nobody hears of a token that ended before it could be sent";
    ExpiryNotStored "a new token is stored with the old expiry";
    LeaseKept "what is not sent is not given back";
    SpentNotPutAgain "what a failover has lost of a token that was sent is not put there again";
    CommitForgotten "the last commit of a batch is not made";
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug on this thread, or none.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted.
#[cfg(feature = "planted-bugs")]
pub fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// None is.
#[cfg(not(feature = "planted-bugs"))]
pub const fn has(_bug: Bug) -> bool {
    false
}
