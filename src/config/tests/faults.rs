//! Every fault says what, where from, and what is known.

use super::*;

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
         `refresh`, `providers`, `mail`, `webhook`, `alarm`, `journal`, `log`, `connections`)"
    );
    assert_eq!(
        file_fault(
            "[providers.google]\nkind = \"oauth2\"\ntoken_url = \"https://x\"\nclient_id = \"x\"\nclient_secret = \"hunter2\"\nclas = \"grace\""
        ),
        "key `providers.google.clas` (file `perene.toml`) is not known; did you mean `providers.google.class`? (known keys of \
         `providers.google`: `kind`, `token_url`, `client_id`, `client_secret`, `client_auth`, `class`, `scope`, `extra`)"
    );
    assert!(file_fault("[refresh]\n\"win\\ndow\" = 1").contains("`refresh.win\\ndow`"));
    assert!(
        file_fault("\"refresh.window\" = \"7d\"").starts_with("key `refresh.window` (file `perene.toml`) is not known")
    );
}

#[test]
fn a_key_cannot_break_a_line() {
    assert!(
        file_fault("[providers.\"a\\nb\"]\nkind = \"oauth2\"")
            .starts_with("`providers.a\\nb` (file `perene.toml`) cannot be")
    );
    assert!(
        file_fault("[refresh.\"a\\nb\"]\nx = 1").starts_with("key `refresh.a\\nb` (file `perene.toml`) is not known")
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
    // A service called `perene` or `perene-sandbox` in Kubernetes.
    for name in
        ["SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "SANDBOX_PORT_80_TCP_ADDR", "SANDBOX_SERVICE_HOST"]
    {
        World::new().var(&format!("PERENE_{name}"), "tcp://10.0.0.1:80").config();
    }
    for name in ["PERENE_SERVICE__HOST", "PERENE_PORTS", "PERENE_PORT_TCP"] {
        assert!(World::new().var(name, "x").fault().starts_with("variable"), "{name}");
    }
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
            "`schedule.cron` (file `perene.toml`) must be a cron expression such as `0 3 * * *`, not `0 0 30 2 *`: no date fits it",
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
            "[providers.google]\nkind = \"oauth2\"\nclient_id = \"x\"\nclient_secret = \"hunter2\"\nextra = \"audience\"",
            "`providers.google.extra` (file `perene.toml`) must be form fields such as `audience=https%3A%2F%2Fapi.example.com&lang=en`",
        ),
        (
            "[providers.google]\nkind = \"oauth2\"\nclient_id = \"x\"\nclient_secret = \"hunter2\"\nextra = \"a=b&grant%5Ftype=x\"",
            "`providers.google.extra` (file `perene.toml`) cannot hold the field `grant_type`: it has a key of its own, or is set by itself",
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
        .file("[refresh]\nwindow = \"x\"\nwindw = 1\n[[connections]]\nprovider = \"acmee\"\n[providers.acme]\nkind = \"oauth2\"")
        .var("DATABASE_URL", "mysql://x")
        .faults();
    let beginnings = [
        "key `refresh.windw` ",
        "`database.url` ",
        "`refresh.window` ",
        "`providers.acme.token_url` is missing: an OAuth 2.0 provider needs it, unless its name is a known one (`google`, ",
        "`providers.acme.client_id` is missing",
        "`providers.acme.client_secret` is missing",
        "`table` (file `perene.toml`, 1. `[[connections]]`) is missing",
        "`provider` (file `perene.toml`, 1. `[[connections]]`) names no provider: `acmee` (known: `meta`, `acme`;",
    ];
    assert_eq!(faults.len(), beginnings.len(), "{faults:#?}");
    for (fault, beginning) in faults.iter().zip(beginnings) {
        assert!(fault.starts_with(beginning), "{fault}");
    }
}
