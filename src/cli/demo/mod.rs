//! `perene demo`: what Perene does, shown on a simulated Meta and a database of its own.

mod fleet;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use perene_policy::Settings;
use perene_policy::schedule::Schedule;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::net::TcpListener;

use super::args::{Demo, Global};
use super::exit::Exit;
use super::failure::Failure;
use super::{assemble, log_without_configuration, out, refresh, signal, status, table};
use crate::clock::Clock;
use crate::config::{Level, META, Source};
use crate::engine::{Engine, Parts, RunKind, RunRequest, Stop};
use crate::provider::Provider;
use crate::provider::meta::{Meta, MetaApp};
use crate::provider::sandbox::{self, Sandbox, SandboxSettings};
use crate::store::Store;
use crate::store::sqlite::SqliteStore;

/// How long the simulated Meta takes to answer: about what the real one does at its best.
const LATENCY: Duration = Duration::from_millis(60);

/// Few calls at a time, so that the bar can be seen to move.
const CONCURRENCY: usize = 8;

pub(super) async fn demo(args: &Demo, global: &Global) -> Result<Exit, Failure> {
    log_without_configuration(global, Level::Off);
    let stop = signal::stop_on_signal()?;
    let folder = tempfile::Builder::new()
        .prefix("perene-demo-")
        .tempdir()
        .map_err(|error| Failure::could_not_work(format!("no folder can be made for the demo: {error}")))?;
    let file = folder.path().join("perene.db");
    let shown = show(&file, &stop).await;
    if args.keep {
        let kept = folder.keep();
        out::say(&format!("\nkept: {}", kept.join("perene.db").display()));
    } else {
        folder
            .close()
            .map_err(|error| Failure::could_not_work(format!("the demo's folder could not be removed: {error}")))?;
    }
    shown
}

async fn show(file: &Path, stop: &Stop) -> Result<Exit, Failure> {
    let clock = assemble::clock();
    let store: Arc<dyn Store> =
        Arc::new(SqliteStore::open(file, vec![Source::default()], Arc::clone(&clock), true).await?);
    store.migrate().await?;
    let count = fill(file, clock.as_ref())
        .await
        .map_err(|error| Failure::could_not_work(format!("the demo's database could not be filled: {error}")))?;
    out::say(&format!(
        "{count} invented connections in an SQLite file, and a simulated Meta that answers as the real one does.\n\
         One run, as every night at three:\n"
    ));

    let (base_url, server) = serve_sandbox(Arc::clone(&clock)).await?;
    let engine = engine(store, clock, &base_url)?;
    let request = RunRequest::all(RunKind::ByHand);
    let report = refresh::run_with_progress(&engine, &request, stop, true).await;
    server.abort();
    let report = report?;
    out::say(&table::of_run(&report));

    let now = engine.store().now().await?;
    let window = Settings::default().window;
    let mut standing = engine.store().standing(&[window], 3, now).await?;
    status::count_limited(engine.store().as_ref(), engine.sources(), &[window], now, &mut standing).await?;
    let alarms = engine.store().alarms().await?;
    out::say("\nand so they stand now (`perene status`):\n");
    out::say(&status::fleet_text(&standing, &alarms, engine.sources(), now));
    engine.store().close().await;
    Ok(if report.was_interrupted { Exit::CouldNotWork } else { Exit::Done })
}

async fn serve_sandbox(clock: Arc<dyn Clock>) -> Result<(String, tokio::task::JoinHandle<()>), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::could_not_work(format!("the simulated Meta cannot listen on 127.0.0.1: {error}"))
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(cannot)?;
    let base_url = format!("http://{}", listener.local_addr().map_err(cannot)?);
    let sandbox = Sandbox::new(SandboxSettings { latency: LATENCY, ..SandboxSettings::default() });
    let server = tokio::spawn(async move {
        if let Err(error) = sandbox::serve(listener, sandbox, clock, std::future::pending()).await {
            tracing::error!("the simulated Meta has stopped: {error}");
        }
    });
    Ok((base_url, server))
}

fn engine(store: Arc<dyn Store>, clock: Arc<dyn Clock>, base_url: &str) -> Result<Engine, Failure> {
    let app = || MetaApp {
        id: Some("demo-app".to_owned()),
        secret: Some("demo-secret".into()),
        base_url: base_url.to_owned(),
    };
    let meta = Meta::new(app(), "v26.0".to_owned(), app(), app(), CONCURRENCY)
        .map_err(|error| Failure::could_not_work(error.to_string()))?;
    let schedule = Schedule::parse("0 3 * * *", TimeZone::system(), clock.now())
        .map_err(|error| Failure::could_not_work(error.to_string()))?;
    let providers = BTreeMap::from([(META.to_owned(), Arc::new(meta) as Arc<dyn Provider>)]);
    Ok(Engine::new(Parts {
        store,
        providers,
        clock,
        sources: vec![Source::default()],
        settings: Settings::default(),
        schedule,
        concurrency: CONCURRENCY,
        channels: Vec::new(),
        journal: None,
        new_id: Arc::new(uuid::Uuid::new_v4),
    }))
}

async fn fill(file: &Path, clock: &dyn Clock) -> Result<usize, sqlx::Error> {
    let mut connection = SqliteConnectOptions::new().filename(file).disable_statement_logging().connect().await?;
    let fleet = fleet::invent(clock.now());
    let mut transaction = connection.begin().await?;
    for one in &fleet {
        insert(&mut transaction, one).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(fleet.len())
}

async fn insert(connection: &mut SqliteConnection, one: &fleet::Invented) -> Result<(), sqlx::Error> {
    let expires_at = one.expires_at.map(|at| at.strftime("%Y-%m-%d %H:%M:%S").to_string());
    sqlx::query("INSERT OR IGNORE INTO users (id, email, username) VALUES (?, ?, ?)")
        .bind(one.user_id)
        .bind(format!("customer{}@example.com", one.user_id))
        .bind(format!("customer{}", one.user_id))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO instagram_connections (id, user_id, access_token, token_expires_at, refresh_attempts) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(one.id)
    .bind(one.user_id)
    .bind(one.token.as_deref())
    .bind(expires_at)
    .bind(one.attempts)
    .execute(&mut *connection)
    .await?;
    Ok(())
}
