use std::fs;

use tempfile::TempDir;

use super::*;

/// Every secret in these tests holds this word; no error and no `Debug` may.
const CANARY: &str = "hunter2";

struct World {
    folder: TempDir,
    env: Environment,
    flags: Overrides,
}

impl World {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), env: Environment::new(), flags: Overrides::default() }
    }

    fn file(self, text: &str) -> Self {
        self.named("perene.toml", text)
    }

    fn named(self, name: &str, text: &str) -> Self {
        fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn var(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.flags, &self.env, self.folder.path())
    }

    fn config(&self) -> Config {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The faults, the test's folder cut out of them.
    fn faults(&self) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let error = self.load().expect_err("a fault");
        assert!(!error.to_string().contains(CANARY), "{error}");
        for line in error.lines() {
            assert!(!line.contains('\n'), "{line:?}");
        }
        error.lines().iter().map(|line| line.replace(&folder, "")).collect()
    }

    fn fault(&self) -> String {
        let faults = self.faults();
        assert_eq!(faults.len(), 1, "{faults:#?}");
        faults[0].clone()
    }
}

fn file_fault(text: &str) -> String {
    World::new().file(text).fault()
}

#[test]
fn without_anything_the_defaults_count() {
    let config = World::new().var("PERENE_SCHEDULE__TIME_ZONE", "UTC").config();
    assert_eq!(config.schedule.cron, "0 3 * * *");
    assert_eq!(config.schedule.time_zone_name, "UTC");
    assert_eq!(config.refresh.settings(), perene_policy::Settings::default());
    assert_eq!(config.refresh.concurrency, 64);
    assert_eq!(config.providers.facebook.base_url.as_str(), "https://graph.facebook.com/");
    assert_eq!(config.providers.facebook.api_version, "v26.0");
    assert_eq!(config.providers.instagram.base_url.as_str(), "https://graph.instagram.com/");
    assert_eq!(config.providers.threads.base_url.as_str(), "https://graph.threads.net/");
    assert_eq!((config.mail, config.webhook, config.alarm), (None, None, Alarm::default()));
    assert_eq!(config.log, Log::default());
    assert_eq!(config.sources, [Source::default()]);
    assert!(config.database.url.describe().ends_with("/perene.db"));
}

#[test]
fn three_variables_are_enough() {
    let world = World::new()
        .var("DATABASE_URL", "postgres://perene:hunter2@db/app")
        .var("FACEBOOK_APP_ID", "123")
        .var("FACEBOOK_APP_SECRET", CANARY);
    let config = world.config();
    assert_eq!(config.database.url.describe(), "postgres://perene@db/app");
    let (id, secret) = config.providers.facebook_credentials().unwrap();
    assert_eq!((id, secret.expose()), ("123", CANARY));
}

#[test]
fn a_variable_beats_the_file_and_a_prefix_beats_none() {
    let mut world = World::new().file("[providers.facebook]\napp_id = \"file\"\n[log]\nlevel = \"error\"");
    let id = |world: &World| world.config().providers.facebook.app_id.unwrap();
    assert_eq!(id(&world), "file");
    world = world.var("FACEBOOK_APP_ID", "plain");
    assert_eq!(id(&world), "plain");
    world = world.var("PERENE_PROVIDERS__FACEBOOK__APP_ID", "prefixed");
    assert_eq!(id(&world), "prefixed");
    world = world.var("PERENE_PROVIDERS__FACEBOOK__APP_ID", "");
    assert_eq!(id(&world), "plain", "an empty variable counts as unset");
}

#[test]
fn a_flag_beats_prefix_beats_rust_log_beats_the_file() {
    let log = |world: &World| {
        let log = world.config().log;
        (log.level, log.directives)
    };
    let mut world = World::new().file("[log]\nlevel = \"error\"");
    assert_eq!(log(&world), (Level::Error, None));
    world = world.var("RUST_LOG", "perene=trace");
    assert_eq!(log(&world), (Level::Error, Some("perene=trace".to_owned())));
    world = world.var("PERENE_LOG__LEVEL", "debug");
    assert_eq!(log(&world), (Level::Debug, None));
    world.flags.log_level = Some(Level::Warn);
    assert_eq!(log(&world), (Level::Warn, None));
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    let value = |key: &keys::Key| match key.path.rsplit('.').next().unwrap() {
        "url" if key.path.starts_with("database") => "postgres://hunter2@db/app",
        "cron" => "5 4 * * *",
        "time_zone" => "Asia/Tokyo",
        "window" | "warn_before" => "5d",
        "concurrency" | "warn_after_failures" => "9",
        "api_version" => "v99.1",
        "kind" => "oauth2",
        "client_auth" => "basic",
        "class" => "grace",
        "smtp_url" => "smtp://u:hunter2@mx",
        "from" | "email" => "ana@example.com",
        "locale" => "es",
        "secret" => "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==",
        "allow_private" => "true",
        "level" => "trace",
        "format" => "json",
        name if name.ends_with("url") => "https://hunter2.example",
        _ => CANARY,
    };
    let mut world = World::new();
    for key in keys::KEYS {
        world = world.var(&key.variable().replace("NAME", "GOOGLE_ADS"), value(key));
    }
    let config = world.config();
    let plain = World::new().config();
    assert_ne!(config.database, plain.database);
    assert_eq!(config.schedule.cron, "5 4 * * *");
    assert_eq!(config.schedule.time_zone_name, "Asia/Tokyo");
    let refresh = &config.refresh;
    assert_eq!((refresh.window, refresh.warn_before), (jiff::SignedDuration::from_hours(120), refresh.window));
    assert_eq!((refresh.concurrency, refresh.warn_after_failures), (9, 9));
    for app in [&config.providers.facebook, &config.providers.instagram, &config.providers.threads] {
        assert_eq!(app.app_id.as_deref(), Some(CANARY));
        assert_eq!(app.app_secret.as_ref().unwrap().expose(), CANARY);
        assert_eq!(app.base_url.as_str(), "https://hunter2.example/");
    }
    assert_eq!(config.providers.facebook.api_version, "v99.1");
    let google = &config.providers.oauth2["google_ads"];
    assert_eq!((google.client_auth, google.class), (ClientAuth::Basic, Class::Grace));
    assert_eq!((google.name.as_str(), google.client_secret.expose()), ("google_ads", CANARY));
    let mail = config.mail.unwrap();
    assert_eq!((mail.locale, mail.from.email.to_string().as_str()), (Locale::Es, "ana@example.com"));
    assert!(mail.ca_file.unwrap().ends_with(CANARY));
    assert!(config.reconnect.url.is_some() && config.reconnect.link_secret.is_some());
    assert!(config.webhook.unwrap().allow_private);
    assert!(config.alarm.slack_url.is_some() && config.alarm.email.is_some());
    assert_eq!((config.log.level, config.log.format), (Level::Trace, LogFormat::Json));
}

#[test]
fn no_secret_is_in_debug() {
    let secrets = keys::KEYS.iter().filter(|key| key.kind == keys::Kind::Secret);
    let mut world = World::new()
        .var("PERENE_MAIL__FROM", "ana@example.com")
        .var("PERENE_PROVIDERS__X__KIND", "oauth2")
        .var("PERENE_PROVIDERS__X__TOKEN_URL", "https://x.example/token")
        .var("PERENE_PROVIDERS__X__CLIENT_ID", "perene");
    let mut count = 0;
    for key in secrets {
        let value = match key.path {
            "database.url" => "postgres://ana:hunter2@db/app?sslpassword=hunter2",
            "mail.smtp_url" => "smtp://u:hunter2@mx",
            "webhook.secret" => "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==",
            path if path.ends_with("url") => "https://x.example/hunter2?token=hunter2",
            _ => CANARY,
        };
        world = world.var(&key.variable().replace("NAME", "X"), value);
        count += 1;
    }
    assert_eq!(count, 10);
    let shown = format!("{:?} {0:#?}", world.config());
    assert!(!shown.contains(CANARY) && !shown.contains("aHVudGVyM"), "{shown}");
    assert!(shown.contains("ana@db"), "the rest is shown: {shown}");
}

#[test]
fn secrets_may_come_from_files_at_every_level() {
    let mut world = World::new()
        .named("a", "from-key\n")
        .named("b", "from-plain\r\n")
        .named("c", "from-prefixed")
        .file("[providers.facebook]\napp_secret_file = \"a\"");
    let secret = |world: &World| world.config().providers.facebook.app_secret.unwrap().expose().to_owned();
    assert_eq!(secret(&world), "from-key");
    world = world.var("FACEBOOK_APP_SECRET_FILE", "b");
    assert_eq!(secret(&world), "from-plain");
    world = world.var("PERENE_PROVIDERS__FACEBOOK__APP_SECRET_FILE", "c");
    assert_eq!(secret(&world), "from-prefixed");
    world =
        world.var("PERENE_PROVIDERS__FACEBOOK__APP_SECRET_FILE", "").var("PERENE_PROVIDERS__FACEBOOK__APP_SECRET", "x");
    assert_eq!(secret(&world), "x", "a stronger value beats a weaker file");
    fs::remove_file(world.folder.path().join("b")).unwrap();
    assert_eq!(secret(&world), "x", "a file that does not count need not be there");
}

#[test]
fn a_file_of_a_database_url_is_read() {
    let world = World::new().named("url", "sqlite:/srv/x.db\n").var("DATABASE_URL_FILE", "url");
    assert_eq!(world.config().database.url, DatabaseUrl::Sqlite("/srv/x.db".into()));
}

#[test]
fn a_secret_and_its_file_at_one_level_are_one_too_many() {
    assert_eq!(
        World::new().var("SMTP_URL", "smtp://u:hunter2@x").var("SMTP_URL_FILE", "x").fault(),
        "variables `SMTP_URL` and `SMTP_URL_FILE` are both set; keep one"
    );
    assert_eq!(
        World::new().var("PERENE_DATABASE__URL", "hunter2").var("PERENE_DATABASE__URL_FILE", "x").fault(),
        "variables `PERENE_DATABASE__URL` and `PERENE_DATABASE__URL_FILE` are both set; keep one"
    );
    assert_eq!(
        file_fault("[database]\nurl = \"sqlite:hunter2\"\nurl_file = \"x\""),
        "`database.url` and `database.url_file` are both set (file `perene.toml`); keep one"
    );
}

#[test]
fn a_secret_file_that_cannot_be_read_is_named_with_its_variable() {
    assert_eq!(
        World::new().var("FACEBOOK_APP_SECRET_FILE", "gone").fault(),
        "`providers.facebook.app_secret` (variable `FACEBOOK_APP_SECRET_FILE`) cannot be read from the file `gone`: there is no such file"
    );
    assert_eq!(
        World::new().named("two", "hunter2\nhunter2\n").var("FACEBOOK_APP_SECRET_FILE", "two").fault(),
        "`providers.facebook.app_secret` (variable `FACEBOOK_APP_SECRET_FILE`) holds a blank, a line break or a character that is not ASCII"
    );
    assert_eq!(
        World::new().named("none", "\n").var("DATABASE_URL_FILE", "none").fault(),
        "`database.url` (variable `DATABASE_URL_FILE`) is empty; leave it out to have none"
    );
    let large = "hunter2".repeat(10_000);
    assert!(
        World::new().named("large", &large).var("DATABASE_URL_FILE", "large").fault().ends_with("larger than 64 KiB")
    );
}

#[test]
fn unknown_keys_are_named_with_their_origin_and_the_known_ones() {
    assert_eq!(
        file_fault("[refresh]\nwindw = \"7d\""),
        "key `refresh.windw` (file `perene.toml`) is not known; did you mean `refresh.window`? (known keys of `refresh`: \
         `window`, `concurrency`, `warn_after_failures`, `warn_before`)"
    );
    assert_eq!(
        file_fault("[databse]\nurl = \"hunter2\""),
        "key `databse` (file `perene.toml`) is not known; did you mean `database`? (known sections: `database`, `schedule`, \
         `refresh`, `providers`, `mail`, `webhook`, `alarm`, `log`, `connections`)"
    );
    assert_eq!(
        file_fault(
            "[providers.google]\nkind = \"oauth2\"\ntoken_url = \"https://x\"\nclient_id = \"x\"\nclient_secret = \"hunter2\"\nclas = \"grace\""
        ),
        "key `providers.google.clas` (file `perene.toml`) is not known; did you mean `providers.google.class`? (known keys of \
         `providers.google`: `kind`, `token_url`, `client_id`, `client_secret`, `client_auth`, `class`)"
    );
    assert!(file_fault("[refresh]\n\"win\\ndow\" = 1").contains("`refresh.win\\ndow`"));
    assert!(
        file_fault("\"refresh.window\" = \"7d\"").starts_with("key `refresh.window` (file `perene.toml`) is not known")
    );
}

#[test]
fn unknown_variables_are_named_with_the_known_ones() {
    assert_eq!(
        World::new().var("PERENE_REFRESH__WINDW", CANARY).fault(),
        "variable `PERENE_REFRESH__WINDW` is not known; did you mean `PERENE_REFRESH__WINDOW`? (known variables: \
         `PERENE_REFRESH__WINDOW`, `PERENE_REFRESH__CONCURRENCY`, `PERENE_REFRESH__WARN_AFTER_FAILURES`, `PERENE_REFRESH__WARN_BEFORE`)"
    );
    assert!(
        World::new()
            .var("PERENE_DATABASE_URL", CANARY)
            .fault()
            .starts_with("variable `PERENE_DATABASE_URL` is not known; did you mean `PERENE_DATABASE__URL`?")
    );
    assert_eq!(
        World::new().var("PERENE_CONNECTIONS__0__TABLE", "x").fault(),
        "variable `PERENE_CONNECTIONS__0__TABLE` is not known: `[[connections]]` can be set in the file only"
    );
    for name in ["PERENE_refresh__window", "PERENE_PROVIDERS__META__KIND", "PERENE_MAIL__FROM_FILE", "PERENE_REFRESH"] {
        let fault = World::new().var(name, "x").fault();
        assert!(fault.starts_with(&format!("variable `{name}` is not known")), "{fault}");
    }
    World::new().var("PERENE_TEST_POSTGRES", "x").var("PERENE_NOTHING", "").config();
}

#[test]
fn wrong_values_are_named_with_their_origin_and_what_is_allowed() {
    for (text, fault) in [
        (
            "[refresh]\nwindow = \"soon\"",
            "`refresh.window` (file `perene.toml`) must be a duration such as `7d`, `72h`, `30m` or `1d12h`, not `soon`",
        ),
        ("[refresh]\nwindow = \"0s\"", "`refresh.window` (file `perene.toml`) must be from `1s` to `365d`, not `0s`"),
        ("[refresh]\nwindow = 7", "`refresh.window` (file `perene.toml`) must be a text in quotes"),
        (
            "[refresh]\nconcurrency = 0",
            "`refresh.concurrency` (file `perene.toml`) must be a whole number from 1 to 4096, not `0`",
        ),
        (
            "[refresh]\nconcurrency = 1.5",
            "`refresh.concurrency` (file `perene.toml`) must be a whole number from 1 to 4096, not a fraction",
        ),
        (
            "[refresh]\nconcurrency = \"64\"",
            "`refresh.concurrency` (file `perene.toml`) must be a whole number from 1 to 4096, not the text `64`",
        ),
        (
            "[schedule]\ncron = \"0 0 30 2 *\"",
            "`schedule.cron` (file `perene.toml`) must be a cron expression that matches some day: `0 0 30 2 *` never does",
        ),
        (
            "[schedule]\ntime_zone = \"Mars/Olympus\"",
            "`schedule.time_zone` (file `perene.toml`) must be an IANA time zone such as `America/Sao_Paulo` or `UTC`, not `Mars/Olympus`",
        ),
        ("[log]\nformat = \"xml\"", "`log.format` (file `perene.toml`) must be one of `text`, `json`, not `xml`"),
        (
            "[providers.facebook]\nbase_url = \"http://graph.example.com\"",
            "`providers.facebook.base_url` (file `perene.toml`) must begin with `https://`: plain `http://` only to this machine (127.0.0.0/8, ::1, localhost)",
        ),
        (
            "[providers.facebook]\napi_version = \"26\"",
            "`providers.facebook.api_version` (file `perene.toml`) must be a version of the Graph API such as `v26.0`, not `26`",
        ),
        (
            "[providers.facebook]\napp_id = \"\"",
            "`providers.facebook.app_id` (file `perene.toml`) is empty; leave it out to have none",
        ),
        (
            "[providers.facebook]\napp_secret = 4711",
            "`providers.facebook.app_secret` (file `perene.toml`) must be a text in quotes",
        ),
        (
            "database = \"sqlite:x\"",
            "`database` (file `perene.toml`) must be a table (known keys of `database`: `url`)",
        ),
        ("[database.url]\nx = 1", "`database.url` (file `perene.toml`) must be a value, not a table"),
        ("[database]\nurl_file = 1", "`database.url_file` (file `perene.toml`) must be a path in quotes"),
        (
            "[webhook]\nallow_private = \"yes\"",
            "`webhook.allow_private` (file `perene.toml`) must be `true` or `false`, not the text `yes`",
        ),
        (
            "[alarm]\nemail = \"a@example.com\"",
            "`alarm.email` (file `perene.toml`) needs `mail.smtp_url`, which is not set",
        ),
        (
            "[mail]\nfrom = \"nobody\"",
            "`mail.from` (file `perene.toml`) must be a mail address such as `ana@example.com` or `Ana <ana@example.com>`, not `nobody`",
        ),
        (
            "[providers.google]\nkind = \"oauth1\"\ntoken_url = \"https://x\"\nclient_id = \"x\"\nclient_secret = \"hunter2\"",
            "`providers.google.kind` (file `perene.toml`) must be one of `oauth2`, not `oauth1`",
        ),
        (
            "[providers.Google]\nkind = \"oauth2\"",
            "`providers.Google` (file `perene.toml`) cannot be the name of a provider: small letters, digits and single `_`, beginning with a letter; `meta` and `sandbox` are taken",
        ),
    ] {
        assert_eq!(file_fault(text), fault);
    }
    assert_eq!(
        World::new().var("PERENE_REFRESH__CONCURRENCY", "many").fault(),
        "`refresh.concurrency` (variable `PERENE_REFRESH__CONCURRENCY`) must be a whole number from 1 to 4096, not the text `many`"
    );
    assert_eq!(
        World::new().var("RUST_LOG", "perene=loud").fault(),
        "`log.level` (variable `RUST_LOG`) must be a level or directives such as `perene=debug`, not `perene=loud`"
    );
}

#[test]
fn a_malformed_secret_is_not_repeated() {
    for (name, value) in [
        ("DATABASE_URL", "hunter2"),
        ("DATABASE_URL", "mysql://u:hunter2@h/db"),
        ("DATABASE_URL", "postgres://u:hunter2#@h/db"),
        ("FACEBOOK_APP_SECRET", "hunter2 hunter2"),
        ("FACEBOOK_APP_SECRET", "hunter2\u{fffd}"),
        ("PERENE_WEBHOOK__SECRET", "hunter2 is not base64"),
        ("PERENE_ALARM__SLACK_URL", "http://hooks.example/hunter2"),
    ] {
        let fault = World::new().var(name, value).fault();
        assert!(fault.contains(&format!("variable `{name}`")), "{fault}");
    }
    assert_eq!(
        World::new().var("DATABASE_URL", "mysql://u:hunter2@h/db").fault(),
        "`database.url` (variable `DATABASE_URL`) has the unsupported scheme `mysql` (known: `sqlite:PATH`, `sqlite://PATH`, \
         `postgres://...`, `postgresql://...`)"
    );
}

#[test]
fn a_file_that_is_no_toml_is_not_repeated() {
    for text in [
        "[database]\nurl = \"hunter2",
        "[database]\nurl = hunter2",
        "[database]\nhunter2",
        "[database]\nurl = 'a'\nurl = 'hunter2'",
        "[database]\nurl = \"hunter2\" hunter2",
    ] {
        let fault = file_fault(text);
        assert!(fault.starts_with("file `perene.toml` is not TOML: see line "), "{fault}");
    }
    assert!(file_fault("[log]\n\nlevel = loud").contains("see line 3 "));
}

#[test]
fn smtp_without_a_sender_is_wrong_and_a_sender_without_smtp_is_not() {
    assert_eq!(
        World::new().var("SMTP_URL", "smtp://u:hunter2@mx").fault(),
        "`mail.from` is missing: `mail.smtp_url` is set (variable `SMTP_URL`), so a sender is needed, such as `Perene <perene@example.com>`"
    );
    assert_eq!(World::new().var("PERENE_MAIL__FROM", "a@example.com").config().mail, None);
}

#[test]
fn a_webhook_needs_a_secret() {
    let fault = World::new().var("PERENE_WEBHOOK__URL", "https://x.example/hunter2").fault();
    assert!(fault.starts_with("`webhook.secret` is missing: `webhook.url` is set"), "{fault}");
}

#[test]
fn missing_credentials_are_named_with_their_variables() {
    let providers = World::new().var("FACEBOOK_APP_ID", "1").config().providers;
    assert_eq!(
        providers.facebook_credentials().unwrap_err().to_string(),
        "`providers.facebook.app_secret` (variable `FACEBOOK_APP_SECRET`) is not set: take it from your app's basic settings at developers.facebook.com"
    );
}

#[test]
fn the_configuration_file_that_was_asked_for_must_be_there() {
    let mut world = World::new().var("PERENE_CONFIG", "other.toml");
    assert_eq!(
        world.fault(),
        "cannot read the configuration file `other.toml` (named by variable `PERENE_CONFIG`): there is no such file"
    );
    world = world.named("flag.toml", "[log]\nlevel = \"warn\"");
    world.flags.config = Some("flag.toml".into());
    assert_eq!(world.config().log.level, Level::Warn, "the flag beats the variable");
    world.flags.config = Some("gone.toml".into());
    assert_eq!(
        world.fault(),
        "cannot read the configuration file `gone.toml` (named by `--config`): there is no such file"
    );
}

#[test]
fn all_faults_come_at_once() {
    let faults = World::new()
        .file("[refresh]\nwindow = \"x\"\nwindw = 1\n[[connections]]\nprovider = \"gogle\"\n[providers.google]\nkind = \"oauth2\"")
        .var("DATABASE_URL", "mysql://x")
        .faults();
    let beginnings = [
        "key `refresh.windw` ",
        "`database.url` ",
        "`refresh.window` ",
        "`providers.google.token_url` is missing",
        "`providers.google.client_id` is missing",
        "`providers.google.client_secret` is missing",
        "`table` (file `perene.toml`, 1. `[[connections]]`) is missing",
        "`provider` (file `perene.toml`, 1. `[[connections]]`) names no provider: `gogle` (known: `meta`, `google`;",
    ];
    assert_eq!(faults.len(), beginnings.len(), "{faults:#?}");
    for (fault, beginning) in faults.iter().zip(beginnings) {
        assert!(fault.starts_with(beginning), "{fault}");
    }
}

fn sources(text: &str) -> Vec<Source> {
    World::new().file(text).config().sources
}

#[test]
fn a_source_takes_the_default_names_for_what_it_does_not_say() {
    let [source] = sources("[[connections]]\ntable = \"app.tokens\"").try_into().unwrap();
    assert_eq!(source.table, TableName { schema: Some("app".to_owned()), name: "tokens".to_owned() });
    assert_eq!(Source { table: Source::default().table, ..source }, Source::default());
}

#[test]
fn names_are_split_at_the_first_dot_or_taken_literally() {
    let name = |text: &str| sources(&format!("[[connections]]\n{text}"))[0].table.clone();
    let named =
        |schema: Option<&str>, name: &str| TableName { schema: schema.map(str::to_owned), name: name.to_owned() };
    assert_eq!(name("table = \"t\""), named(None, "t"));
    assert_eq!(name("table = \"s.t.u\""), named(Some("s"), "t.u"));
    assert_eq!(name("table = \"t.u\"\nschema = \"a.b\""), named(Some("a.b"), "t.u"));
    assert_eq!(name("table = '''we\"ird; drop'''"), named(None, "we\"ird; drop"));
    assert_eq!(named(Some("s"), "t").to_string(), "s.t");
}

#[test]
fn an_empty_name_means_none_where_there_may_be_none() {
    let [source] = sources(
        "[[connections]]\ntable = \"t\"\ncolumns = { token_refreshed_at = \"\", refresh_attempts = \"\", last_refresh_error = \"\", refresh_token = \"r\" }\n\
         user = { table = \"u\", username = \"\", show_token_warning = \"\" }",
    )
    .try_into()
    .unwrap();
    let columns = source.columns;
    assert_eq!((columns.token_refreshed_at, columns.refresh_attempts, columns.last_refresh_error), (None, None, None));
    assert_eq!(columns.refresh_token.as_deref(), Some("r"));
    let user = source.user.unwrap();
    assert_eq!((user.username, user.show_token_warning, user.email.as_str()), (None, None, "email"));

    let [source] = sources("[[connections]]\ntable = \"t\"\nuser = \"\"").try_into().unwrap();
    assert_eq!((source.user, source.columns.user_id), (None, None));
}

#[test]
fn an_oauth2_source_has_a_refresh_token() {
    let text = "[providers.x]\nkind = \"oauth2\"\ntoken_url = \"https://x.example/t\"\nclient_id = \"x\"\nclient_secret = \"y\"\n\
                [[connections]]\ntable = \"t\"\nprovider = \"x\"";
    let world = World::new().file(text);
    assert_eq!(world.config().sources[0].columns.refresh_token.as_deref(), Some("refresh_token"));
    let provider = &world.config().providers.oauth2["x"];
    assert_eq!((provider.client_auth, provider.class), (ClientAuth::Body, Class::Strict));
}

#[test]
fn wrong_sources_are_named_by_their_place() {
    let place = "(file `perene.toml`, 1. `[[connections]]`)";
    for (text, fault) in [
        (
            "table = \"t\"\ncolumns = { id = \"\" }",
            format!("`columns.id` {place} is empty, and cannot do without a name"),
        ),
        (
            "table = \"t\"\ncolumns = { user_id = \"\" }",
            format!("`columns.user_id` {place} is empty, and cannot do without a name"),
        ),
        (
            "table = \"t\"\nuser = { table = \"u\", email = \"\" }",
            format!("`user.email` {place} is empty, and cannot do without a name"),
        ),
        ("table = \"\"", format!("`table` {place} is empty, and cannot do without a name")),
        ("table = \"t\"\nschema = \"\"", format!("`schema` {place} is empty, and cannot do without a name")),
        ("table = \"t\"\ncolumns = { id = 1 }", format!("`columns.id` {place} must be a name in quotes")),
        ("table = \"a\\u0000b\"", format!("`table` {place} holds a NUL, which no name can")),
        (
            "table = \"t\"\ncolumns = { acces_token = \"x\" }",
            format!(
                "`columns.acces_token` {place} is not known; did you mean `columns.access_token`? (known keys: `id`, `user_id`, \
                 `access_token`, `refresh_token`, `token_expires_at`, `token_refreshed_at`, `refresh_attempts`, `last_refresh_error`)"
            ),
        ),
        (
            "table = \"t\"\ntabel = \"t\"",
            format!(
                "`tabel` {place} is not known; did you mean `table`? (known keys: `table`, `schema`, `provider`, `columns`, `user`)"
            ),
        ),
        (
            "table = \"t\"\ncolumns = { access_token = \"x\", last_refresh_error = \"x\" }",
            format!("`columns.last_refresh_error` {place} names a column that is mapped already: `x`"),
        ),
    ] {
        assert_eq!(file_fault(&format!("[[connections]]\n{text}")), fault);
    }
    assert!(
        file_fault("[[connections]]\ntable = \".t\"")
            .starts_with(&format!("`table` {place} must be `table` or `schema.table`"))
    );
    assert_eq!(
        file_fault("[[connections]]\ntable = \"s.t\"\n[[connections]]\nschema = \"s\"\ntable = \"t\""),
        "`table` (file `perene.toml`, 2. `[[connections]]`) is mapped twice: `s.t`"
    );
    assert!(file_fault("connections = []").starts_with("`connections` must be written as `[[connections]]`"));
}

#[test]
fn the_examples_are_read() {
    for text in [include_str!("../../examples/basic.toml"), include_str!("../../examples/advanced.toml")] {
        let world = World::new();
        let secrets = world.folder.path().to_string_lossy().into_owned();
        let world = world
            .named("database_url", "postgres://perene:hunter2@db/app")
            .named("facebook_app_secret", CANARY)
            .named("example_client_secret", CANARY)
            .named("smtp_url", "smtps://u:hunter2@smtp.example.com")
            .named("link_secret", CANARY)
            .named("webhook_secret", "whsec_aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMg==")
            .named("slack_url", "https://hooks.example.com/hunter2")
            .file(&text.replace("/run/secrets", &secrets));
        let config = world.config();
        assert!(config.mail.is_some());
        assert!(config.providers.facebook_credentials().is_ok());
    }
}
