//! What beats what.

use super::*;

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
        "key" => "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnQ=",
        "cron" => "5 4 * * *",
        "time_zone" => "Asia/Tokyo",
        "window" | "warn_before" => "5d",
        "concurrency" | "warn_after_failures" => "9",
        "api_version" => "v99.1",
        "kind" => "oauth2",
        "client_auth" => "basic",
        "class" => "grace",
        "extra" => "a=b",
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
    assert_eq!(google.scope.as_deref(), Some(CANARY));
    assert_eq!(google.extra, [("a".to_owned(), "b".to_owned())]);
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
fn the_examples_are_read() {
    for text in [include_str!("../../../examples/basic.toml"), include_str!("../../../examples/advanced.toml")] {
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
