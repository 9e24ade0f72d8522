//! A throw-away PostgreSQL for the tests: one cluster for the process, one database for each test.
//!
//! The server is told to stop by a watchdog that waits for a pipe to close: however the test process ends,
//! its end of the pipe closes with it. Without server binaries a test fails and says what to install.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use async_trait::async_trait;
use jiff::Timestamp;
use perene_policy::Secret;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, Row};

use super::PostgresStore;
use crate::config::Source;
use crate::store::StoreError;
use crate::store::contract::Fixture;

const SETTINGS: &str = "
listen_addresses = ''
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 200
timezone = 'America/Sao_Paulo'
log_timezone = 'America/Sao_Paulo'
jit = off
";

/// Whoever is called `with_password` must say it; all others are let in.
const ADMISSION: &str = "local all with_password scram-sha-256\nlocal all all trust\n";

/// The cluster of this test process.
struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    /// Stops the server when this process has ended.
    _watchdog: Child,
}

impl Cluster {
    fn get() -> &'static Self {
        static CLUSTER: OnceLock<Cluster> = OnceLock::new();
        CLUSTER.get_or_init(Self::start)
    }

    fn start() -> Self {
        let bin = binaries();
        let folder = PathBuf::from(run(&["mktemp", "-d", "/tmp/perene-pg-XXXXXXXX"]).trim());
        let data = folder.join("data");
        let text = |path: &Path| path.display().to_string();
        let program = |name: &str| text(&bin.join(name));
        run(&[
            &program("initdb"),
            "-D",
            &text(&data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ]);
        let settings = format!("{SETTINGS}unix_socket_directories = '{}'\n", text(&folder));
        run(&[
            "sh",
            "-c",
            "printf '%s' \"$1\" >> \"$2\"/postgresql.auto.conf; printf '%s' \"$3\" > \"$2\"/pg_hba.conf",
            "sh",
            &settings,
            &text(&data),
            ADMISSION,
        ]);
        run(&[&program("pg_ctl"), "-D", &text(&data), "-l", &text(&folder.join("log")), "-w", "-t", "60", "start"]);
        let stop = format!(
            "read _; '{}' -D '{}' -m immediate stop; rm -rf '{}'",
            program("pg_ctl"),
            text(&data),
            text(&folder)
        );
        let watchdog = as_nobody_special(&["sh", "-c", &stop])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not in the terminal's group: Ctrl-C must not end the one that cleans up after it.
            .process_group(0)
            .spawn()
            .expect("`sh` can be run");
        Self { folder, bin, _watchdog: watchdog }
    }
}

/// The folder of the server's binaries.
fn binaries() -> PathBuf {
    if let Some(bin) = std::env::var_os("PERENE_TEST_POSTGRES_BIN") {
        return bin.into();
    }
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    versions.sort_unstable();
    let newest = versions.pop();
    newest.map(|(_, bin)| bin).expect(
        "no PostgreSQL server to test with: install one (Debian: `apt-get install postgresql`), or set \
         PERENE_TEST_POSTGRES_BIN to the folder that holds `initdb` and `pg_ctl`",
    )
}

/// A command that does not run as root: the server refuses to.
fn as_nobody_special(command: &[&str]) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let words: Vec<&str> =
        if is_root { [&["runuser", "-u", "postgres", "--"], command].concat() } else { command.to_vec() };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir("/");
    command
}

fn run(command: &[&str]) -> String {
    // The server inherits what it is given here: a pipe would never be closed.
    let is_start = command.last() == Some(&"start");
    let mut process = as_nobody_special(command);
    let output = if is_start {
        let status = process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.map(|status| std::process::Output { status, stdout: Vec::new(), stderr: Vec::new() })
    } else {
        process.stdin(Stdio::null()).output()
    };
    let output = output.unwrap_or_else(|error| panic!("`{}` cannot be run: {error}", command[0]));
    assert!(output.status.success(), "`{}` failed: {}", command.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// An empty database of its own. Dropped with the test.
pub(super) struct Database {
    pub(super) name: String,
    /// As the superuser.
    pub(super) app: PgPool,
}

impl Database {
    pub(super) async fn new() -> Self {
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let admin = pool("postgres", "postgres");
        admin.execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}")))).await.expect("creates");
        admin.close().await;
        let app = pool("postgres", &name);
        Self { name, app }
    }

    pub(super) fn url(&self) -> Secret {
        self.url_of("postgres")
    }

    /// The URL for `user` (`name` or `name:password`).
    pub(super) fn url_of(&self, user: &str) -> Secret {
        let folder = Cluster::get().folder.display().to_string();
        Secret::new(format!("postgres://{user}@localhost/{}?host={folder}", self.name))
    }

    pub(super) async fn store(&self) -> PostgresStore {
        PostgresStore::connect(&self.url(), vec![Source::default()]).await.expect("connects")
    }

    /// A connection of the app's own, for transactions that stand open.
    pub(super) async fn session(&self) -> sqlx::postgres::PgConnection {
        options("postgres", &self.name).connect().await.expect("connects")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Cluster { folder, bin, .. } = Cluster::get();
        // What cannot be dropped now goes with the cluster.
        let _ = Command::new(bin.join("psql"))
            .args(["-h", &folder.display().to_string(), "-U", "postgres", "-d", "postgres", "-q", "-c"])
            .arg(format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn options(user: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(&Cluster::get().folder)
        .username(user)
        .database(database)
        .disable_statement_logging()
}

fn pool(user: &str, database: &str) -> PgPool {
    PgPoolOptions::new().max_connections(3).connect_lazy_with(options(user, database))
}

#[async_trait]
impl Fixture for Database {
    type Store = PostgresStore;

    const TIMESTAMP: &'static str = "TIMESTAMPTZ";

    async fn empty() -> Self {
        Self::new().await
    }

    async fn open(&self, sources: Vec<Source>) -> Result<PostgresStore, StoreError> {
        PostgresStore::connect(&self.url(), sources).await
    }

    async fn execute(&self, sql: &str) {
        if let Err(error) = self.app.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await {
            panic!("{error}: {sql}");
        }
    }

    async fn texts(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let rows = match sqlx::query(AssertSqlSafe(sql)).fetch_all(&self.app).await {
            Ok(rows) => rows,
            Err(error) => panic!("{error}: {sql}"),
        };
        rows.iter().map(|row| (0..row.len()).map(|n| row.try_get(n).expect("a text")).collect()).collect()
    }

    fn instant(at: Timestamp) -> String {
        format!("TIMESTAMPTZ '{at}'")
    }

    fn seconds(column: &str) -> String {
        format!("CAST(CAST(extract(epoch FROM {column}) AS BIGINT) AS TEXT)")
    }

    fn repeat(text: char, times: usize) -> String {
        format!("repeat('{text}', {times})")
    }

    fn own(table: &str) -> String {
        format!("perene.{table}")
    }

    fn refuse_updates(table: &str, key: &str, id: &str, message: &str) -> Vec<String> {
        let message = message.replace('\'', "''");
        vec![
            format!(
                "CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION USING MESSAGE = '{message}'; END $$"
            ),
            format!(
                "CREATE TRIGGER refuse BEFORE UPDATE ON {table} FOR EACH ROW WHEN (OLD.{key}::text = '{id}') \
                 EXECUTE FUNCTION refuse_{table}()"
            ),
        ]
    }

    fn log_updates(table: &str, log: &str) -> Vec<String> {
        vec![
            format!(
                "CREATE FUNCTION log_{table}() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN INSERT INTO {log} DEFAULT VALUES; RETURN NULL; END $$"
            ),
            format!("CREATE TRIGGER log AFTER UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION log_{table}()"),
        ]
    }

    async fn pretend_newer_schema(&self) {
        self.execute("INSERT INTO perene.migration (version) VALUES (1000)").await;
    }
}

crate::store::contract::contract_suite!(Database);
