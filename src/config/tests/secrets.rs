//! Secrets from variables and files; none in any output.

use super::*;

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
            "journal.key" => "aHVudGVyMmh1bnRlcjJodW50ZXIyaHVudGVyMmh1bnQ=",
            path if path.ends_with("url") => "https://x.example/hunter2?token=hunter2",
            _ => CANARY,
        };
        world = world.var(&key.variable().replace("NAME", "X"), value);
        count += 1;
    }
    assert_eq!(count, 11);
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
