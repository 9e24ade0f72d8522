//! `perene migrate`: adds what is missing.

use super::args::{Global, Migrate};
use super::exit::Exit;
use super::failure::Failure;
use super::{assemble, load, out};
use crate::store::{FindingKind, Store};

pub(super) async fn migrate(args: &Migrate, global: &Global) -> Result<Exit, Failure> {
    let config = load(global)?;
    let may_create = !args.check && !args.print && args.grant_to.is_none();
    let store = assemble::store(&config, &assemble::clock(), may_create).await?;
    let exit = if args.check {
        check(store.as_ref()).await?
    } else if args.print {
        for statement in store.migration().await? {
            out::say(&format!("{};", statement.trim_end().trim_end_matches(';')));
        }
        Exit::Done
    } else if let Some(role) = &args.grant_to {
        // There must be something to grant rights on; a role that does not exist is found out before.
        store.grants(role).await?;
        store.migrate().await?;
        for statement in store.grants(role).await? {
            out::say(&format!("{};", statement.trim_end().trim_end_matches(';')));
        }
        store.grant(role).await?;
        Exit::Done
    } else {
        let done = store.migrate().await?;
        refuse_what_cannot_work(store.as_ref()).await?;
        match done.len() {
            0 => out::say("nothing to do: everything is there"),
            1 => out::say("done: 1 statement"),
            count => out::say(&format!("done: {count} statements")),
        }
        Exit::Done
    };
    store.close().await;
    Ok(exit)
}

async fn check(store: &dyn Store) -> Result<Exit, Failure> {
    refuse_what_cannot_work(store).await?;
    let missing = store.migration().await?;
    if missing.is_empty() {
        out::say("everything is there");
        return Ok(Exit::Done);
    }
    out::say("missing; `perene migrate` would make it:");
    for statement in missing {
        out::say(&format!("{};", statement.trim_end().trim_end_matches(';')));
    }
    Ok(Exit::CouldNotWork)
}

/// A column of a type that cannot work is for the configuration or the app to change, not for a migration.
async fn refuse_what_cannot_work(store: &dyn Store) -> Result<(), Failure> {
    for finding in store.findings().await? {
        match finding.kind {
            FindingKind::BadType => return Err(Failure::wrong_use(finding.text)),
            FindingKind::MissingTable | FindingKind::MissingOwn => return Err(Failure::could_not_work(finding.text)),
            FindingKind::Missing | FindingKind::Rights | FindingKind::Advice => {}
        }
    }
    Ok(())
}
