//! The mapping of tables.

use super::*;

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
    let text = "[providers.acme]\nkind = \"oauth2\"\ntoken_url = \"https://x.example/t\"\nclient_id = \"x\"\nclient_secret = \"y\"\n\
                [[connections]]\ntable = \"t\"\nprovider = \"acme\"";
    let world = World::new().file(text);
    assert_eq!(world.config().sources[0].columns.refresh_token.as_deref(), Some("refresh_token"));
    let provider = &world.config().providers.oauth2["acme"];
    assert_eq!((provider.client_auth, provider.class), (ClientAuth::Body, Class::Strict));
}

#[test]
fn a_known_name_brings_along_what_is_not_said() {
    let text = |more: &str| {
        format!("[providers.spotify]\nkind = \"oauth2\"\nclient_id = \"x\"\nclient_secret = \"y\"\n{more}")
    };
    let spotify = |more: &str| World::new().file(&text(more)).config().providers.oauth2["spotify"].clone();
    let known = spotify("");
    assert_eq!(known.token_url.as_str(), "https://accounts.spotify.com/api/token");
    assert_eq!((known.client_auth, known.class), (ClientAuth::Basic, Class::Extend));
    assert_eq!((known.scope, known.extra), (None, Vec::new()));
    let said = spotify(
        "token_url = \"https://x.example/t\"\nclient_auth = \"body\"\nclass = \"strict\"\nscope = \"a b\"\nextra = \"k=v%26w&l=\"",
    );
    assert_eq!(said.token_url.as_str(), "https://x.example/t");
    assert_eq!((said.client_auth, said.class), (ClientAuth::Body, Class::Strict));
    assert_eq!(said.scope.as_deref(), Some("a b"));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(said.extra, [pair("k", "v&w"), pair("l", "")]);
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
