//! A token on demand: from the row if it lives long enough, else refreshed first.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use perene_policy::{Connection, Secret, State, due};

use super::driver::{Order, holds_the_same};
use super::report::Report;
use super::run::RunError;
use super::{Engine, Stop};
use crate::store::{StoreError, Which};

/// How often is looked whether another, who is at the connection, is done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// So long is waited for another: longer than the longest call, and than the lease of a dead one.
const PATIENCE: Duration = Duration::from_secs(60);

/// A token that was asked for.
#[derive(Debug)]
pub struct Handed {
    /// The access token.
    pub token: Secret,
    /// How long it lives; `None` if that is not known.
    pub left: Option<SignedDuration>,
    /// It does not live as long as was asked for: it could not be refreshed.
    pub is_short: bool,
}

/// Why no token could be handed out.
#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    /// There is no such row any more.
    #[error("the row of connection `{0}` is gone")]
    Gone(String),
    /// The row holds no token.
    #[error("connection `{0}` holds no token: its customer has to connect first")]
    Empty(String),
    /// The provider has refused it.
    #[error(
        "the provider has refused the token of connection `{id}` ({reason}): its customer has to connect anew \
         (`perene status --id {id}`)"
    )]
    Refused {
        /// The connection.
        id: String,
        /// Why, as a fixed word.
        reason: String,
    },
    /// The token has expired and could not be refreshed.
    #[error("the token of connection `{id}` has expired, and could not be refreshed: {why}")]
    Expired {
        /// The connection.
        id: String,
        /// In a few words.
        why: String,
    },
    /// The store failed, or something is missing.
    #[error(transparent)]
    Run(#[from] RunError),
}

impl From<StoreError> for NoToken {
    fn from(error: StoreError) -> Self {
        Self::Run(error.into())
    }
}

impl Engine {
    /// A token of this connection that lives for at least `min_life`. Many who ask at once cause one refresh: the
    /// others wait for it. While it cannot be refreshed, one that still lives is handed out as it is.
    ///
    /// # Errors
    /// When there is no living token to hand out.
    pub async fn token(
        &self,
        source: usize,
        id: &str,
        min_life: SignedDuration,
        stop: &Stop,
    ) -> Result<Handed, NoToken> {
        self.agree_on_the_time().await?;
        let row = self.row(source, id).await?;
        if lives(&row, self.parts.clock.now(), min_life) {
            return Ok(self.hand_out(row, min_life));
        }
        self.load_apps(false).await?;
        self.settle_up().await?;
        // Read once more: an answer that was kept may just have been stored.
        let seen = self.row(source, id).await?;
        let mut row = seen.clone();
        if lives(&row, self.parts.clock.now(), min_life) {
            return Ok(self.hand_out(row, min_life));
        }
        let deadline = self.parts.clock.monotonic() + PATIENCE;
        let why = loop {
            let report = self.refresh_for(source, &seen, stop).await?;
            row = self.row(source, id).await?;
            // Another has refreshed it, or we have: if it does not live long enough, no token of this provider does.
            if !holds_the_same(&seen, &row) {
                break String::new();
            }
            // Nobody else is at it, and we have had our try.
            if report.leased_elsewhere == 0 {
                break report.troubles.first().map_or_else(String::new, |trouble| trouble.text.clone());
            }
            if self.parts.clock.monotonic() >= deadline || stop.is_set() {
                break "another process is refreshing it, and is not done yet".to_owned();
            }
            self.parts.clock.sleep(LOOK_EVERY).await;
        };
        self.apps.look_after(self.parts.clock.now()).await?;
        let now = self.parts.clock.now();
        if row.expires_at.is_some_and(|at| at <= now) {
            let why = if why.is_empty() { "its provider cannot be asked just now".to_owned() } else { why };
            return Err(NoToken::Expired { id: id.to_owned(), why });
        }
        Ok(self.hand_out(row, min_life))
    }

    async fn refresh_for(&self, source: usize, seen: &Connection, stop: &Stop) -> Result<Report, StoreError> {
        let ids = [seen.id.clone()];
        let which = Which::Named { ids: &ids };
        let order = Order { as_seen: Some(seen), ..self.uncounted(source, which) };
        let mut report = Report::default();
        self.pass(order, stop, &mut report, &|_| {}).await?;
        Ok(report)
    }

    /// The row, if its token can serve: what the provider has refused cannot, unless it was the refresh token beside it,
    /// and what has expired without one is never sent.
    async fn row(&self, source: usize, id: &str) -> Result<Connection, NoToken> {
        let row = self.parts.store.find(source, id).await?.ok_or_else(|| NoToken::Gone(id.to_owned()))?;
        if row.token.expose().is_empty() {
            return Err(NoToken::Empty(id.to_owned()));
        }
        let id = id.to_owned();
        if let Some(State::NeedsReconnect { reason }) = row.memory_of_this_generation().map(|memory| &memory.state)
            && !row.outlives_its_expiry()
        {
            return Err(NoToken::Refused { id, reason: reason.clone() });
        }
        if row.expires_at.is_some_and(|at| at <= self.parts.clock.now()) && !row.outlives_its_expiry() {
            return Err(NoToken::Expired { id, why: "no token is sent that has expired".to_owned() });
        }
        Ok(row)
    }

    fn hand_out(&self, row: Connection, min_life: SignedDuration) -> Handed {
        let now = self.parts.clock.now();
        let left = row.expires_at.map(|at| at.duration_since(now));
        Handed { is_short: left.is_some_and(|left| left < min_life), token: row.token, left }
    }
}

/// Whether a row's token is known to live so long. One without a date is refreshed once, which tells its date.
fn lives(row: &Connection, now: Timestamp, min_life: SignedDuration) -> bool {
    let never_expires = row.memory_of_this_generation().is_some_and(|memory| memory.state == State::NeverExpires);
    row.expires_at.map_or(never_expires, |at| !due::within(at, now, min_life) && at > now)
}
