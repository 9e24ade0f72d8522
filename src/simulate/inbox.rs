//! Where messages arrive, or do not.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::faults::Kind;
use super::time::VirtualClock;
use super::world::{Shared, die, lock};
use crate::clock::Clock;
use crate::notify::{Channel, Delivery, Message};

pub(super) struct Inbox {
    name: &'static str,
    world: Shared,
    clock: VirtualClock,
    replica: usize,
}

impl Inbox {
    pub(super) fn new(name: &'static str, world: Shared, clock: VirtualClock, replica: usize) -> Self {
        Self { name, world, clock, replica }
    }

    fn takes(&self) -> Duration {
        let mut world = lock(&self.world);
        let is_slow = self.name == "webhook" && world.weather.strikes(Kind::WebhookSlow, 0);
        if is_slow { Duration::from_secs(15) } else { Duration::from_millis(world.chance.between(20, 300)) }
    }

    fn becomes(&self, message: &Message, now: Timestamp) -> Delivery {
        let mut world = lock(&self.world);
        let is_mail = self.name == "email";
        let down = if is_mail { Kind::MailDown } else { Kind::WebhookDown };
        if world.weather.strikes(down, 0) {
            return Delivery::Later { after: Duration::ZERO, why: "connection refused".to_owned() };
        }
        if is_mail && world.strikes_one(Kind::MailRefused, 0, 200) {
            world.saw_refused_address(message);
            return Delivery::Never { why: "no such mailbox".to_owned() };
        }
        world.saw_delivered(self.name, message, now);
        Delivery::Sent
    }
}

#[async_trait]
impl Channel for Inbox {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn deliver(&self, message: &Message, _now: Timestamp) -> Delivery {
        let takes = self.takes();
        self.clock.sleep(takes).await;
        let delivery = self.becomes(message, self.clock.now());
        let is_dead = lock(&self.world).dies_at(self.replica, Kind::KillAtNotice, "while sending a notice");
        if is_dead {
            die().await;
        }
        delivery
    }
}
