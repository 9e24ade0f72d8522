//! What a decision's notices become, and how they leave: one message a channel, written in the same
//! transaction as the fact, and sent until it is taken or three days have passed.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use jiff::{SignedDuration, Timestamp};
use perene_policy::planted::{self, Bug};
use perene_policy::{Connection, Decision, Fingerprint, Notice};
use serde::{Deserialize, Serialize};

use super::driver::later;
use super::{Engine, Stop};
use crate::notify::{self, Channel, Delivery, Message, MessageKind};
use crate::store::{Outgoing, Settled, StoreError};

/// Outlives the slowest delivery: a mail server may take its time over the text, for 91 s in all.
const LEASE: SignedDuration = SignedDuration::from_secs(120);

/// Messages that are taken, and sent, at a time: a slow receiver must not keep the others waiting, and none may
/// wait here until its lease has lapsed.
const AT_ONCE: usize = 8;

/// A delivery that has begun is given this long to end when the service is asked to stop.
const LAST_WORD: Duration = Duration::from_secs(20);

/// What a message says besides the columns of the outbox.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    days: Option<u8>,
}

/// The messages that a decision's notices become.
pub(super) fn of(
    engine: &Engine,
    source: usize,
    connection: &Connection,
    decision: &Decision,
    now: Timestamp,
) -> Vec<Outgoing> {
    let channels = &engine.parts.channels;
    decision
        .notices
        .iter()
        .flat_map(|notice| channels.iter().map(move |channel| (notice, channel.name())))
        .skip(usize::from(planted::has(Bug::LostOutboxRow)))
        .filter(|(notice, channel)| *channel != "email" || notice.kind.is_for_the_customer())
        .map(|(notice, channel)| outgoing(source, connection, notice, channel, now))
        .collect()
}

fn outgoing(source: usize, connection: &Connection, notice: &Notice, channel: &str, now: Timestamp) -> Outgoing {
    let payload = Payload { reason: notice.reason.name().to_owned(), expires_at: notice.expires_at, days: notice.days };
    let kind = notice.kind.name();
    let step = notice.days.map(|days| days.to_string()).unwrap_or_default();
    Outgoing {
        id: Fingerprint::of(&format!("{}\n{kind}\n{step}\n{channel}", notice.incident_id)).as_str().to_owned(),
        incident_id: notice.incident_id.clone(),
        source,
        connection_id: connection.id.clone(),
        user_id: connection.user_id.clone(),
        channel: channel.to_owned(),
        kind: kind.to_owned(),
        payload: serde_json::to_string(&payload).expect("a payload has only texts, numbers and dates"),
        created_at: now,
        attempts: 0,
    }
}

impl Engine {
    /// Sends what is in the outbox and whose time has come, until nothing is left of it, `within` has passed
    /// or the stop is asked for. Returns how many messages were delivered.
    ///
    /// # Errors
    /// When the store fails; what was not settled is sent again later, under the same id.
    pub async fn send_outbox(&self, within: Duration, stop: &Stop) -> Result<u64, StoreError> {
        let begun = self.parts.clock.monotonic();
        let mut sent = 0;
        while !stop.is_set() && self.parts.clock.monotonic().saturating_sub(begun) < within {
            let now = self.parts.clock.now();
            let page = self.parts.store.take_outbox(AT_ONCE, now, later(now, LEASE)).await?;
            if page.is_empty() {
                break;
            }
            let mut settled = stream::iter(page).map(|outgoing| self.send(outgoing)).buffer_unordered(AT_ONCE);
            let mut failed = None;
            loop {
                let mut asked = stop.clone();
                tokio::select! {
                    biased;
                    next = settled.next() => match next {
                        Some(Ok(was_sent)) => sent += u64::from(was_sent),
                        // The others are on their way: were they dropped, what has arrived would be sent once more.
                        Some(Err(error)) => drop(failed.get_or_insert(error)),
                        None => break,
                    },
                    () = async { asked.wait().await; self.parts.clock.sleep(LAST_WORD).await } => return Ok(sent),
                }
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(sent)
    }

    async fn send(&self, outgoing: Outgoing) -> Result<bool, StoreError> {
        let settled = self.deliver(&outgoing).await?;
        let now = self.parts.clock.now();
        let id = outgoing.connection_id.as_str();
        let (channel, kind) = (outgoing.channel.as_str(), outgoing.kind.as_str());
        match &settled {
            Settled::Sent => tracing::info!(id, channel, kind, "connection {id}: {channel} `{kind}` sent"),
            Settled::Dropped(why) => {
                tracing::info!(id, channel, kind, "connection {id}: {channel} `{kind}` not sent: {why}");
            }
            Settled::Later(at, why) => {
                tracing::warn!(id, channel, kind, "connection {id}: {channel} `{kind}` is tried again at {at}: {why}");
            }
        }
        if planted::has(Bug::SentNotNoted) && settled == Settled::Sent {
            return Ok(true);
        }
        self.parts.store.settle_outbox(&outgoing.id, &settled, now).await?;
        Ok(settled == Settled::Sent)
    }

    async fn deliver(&self, outgoing: &Outgoing) -> Result<Settled, StoreError> {
        let dropped = |why: &str| Ok(Settled::Dropped(why.to_owned()));
        let Some(channel) = self.parts.channels.iter().find(|channel| channel.name() == outgoing.channel) else {
            return dropped("this channel is no longer configured");
        };
        let Some(kind) = MessageKind::from_stored(&outgoing.kind) else {
            return dropped("a newer perene has written it");
        };
        // Looked at just before it is sent: nobody is told of an incident that is over.
        let is_about_trouble = !matches!(kind, MessageKind::Recovered | MessageKind::Refreshed);
        if is_about_trouble && !self.parts.store.is_open(&outgoing.incident_id).await? {
            return dropped("the incident is over");
        }
        let recipient = match &outgoing.user_id {
            Some(user_id) => self.parts.store.recipient(outgoing.source, user_id).await?,
            None => None,
        };
        let Ok(payload) = serde_json::from_str::<Payload>(&outgoing.payload) else {
            return dropped("its content cannot be read");
        };
        let message = Message {
            id: outgoing.id.clone(),
            kind,
            connection_id: outgoing.connection_id.clone(),
            table: self.parts.sources[outgoing.source].table.to_string(),
            user_id: outgoing.user_id.clone(),
            reason: payload.reason,
            expires_at: payload.expires_at,
            at: outgoing.created_at,
            days_left: payload.days,
            recipient: recipient
                .map(|recipient| notify::Recipient { email: recipient.email, username: recipient.username }),
        };
        let delivery = Channel::deliver(channel.as_ref(), &message, self.parts.clock.now()).await;
        Ok(self.settle(outgoing, delivery))
    }

    fn settle(&self, outgoing: &Outgoing, delivery: Delivery) -> Settled {
        let now = self.parts.clock.now();
        match delivery {
            Delivery::Sent => Settled::Sent,
            Delivery::Skipped(why) => Settled::Dropped(why.to_owned()),
            Delivery::Never { why } => Settled::Dropped(why),
            Delivery::Later { why, .. } if now.duration_since(outgoing.created_at) > notify::GIVE_UP_AFTER => {
                Settled::Dropped(format!("given up after 72 hours: {why}"))
            }
            Delivery::Later { after, why } => {
                let after = SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX);
                let pause = notify::retry_delay(outgoing.attempts.saturating_add(1)).max(after);
                Settled::Later(later(now, pause), why)
            }
        }
    }
}
