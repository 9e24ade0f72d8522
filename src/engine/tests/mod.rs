//! What the contract asks of the engine (sections 3, 4 and 5), a sentence a test.

mod app;
mod attempts;
mod database;
mod lapse;
mod lease;
mod limit;
mod order;
mod outbox;
mod reconnect;
mod retry;
mod rows;
mod service;
mod storm;
mod strict;
