//! Real answers against their hand-set class. The corpus is described in `data/README.md`.

use jiff::Timestamp;
use perene_policy::Outcome;
use perene_policy::answer::{Answer, Endpoint, is_error_shape, judge};
use serde_json::Value;

const CORPUS: &str = include_str!("data/meta-responses.jsonl");

/// Lines whose class cannot be told from the answer alone.
const KNOWN_DISAGREEMENTS: [(&str, &str); 3] = [
    ("doc-usage-headers", "answers a data call; on a token endpoint a 200 without a token is no success"),
    ("pyfb-usage-app", "the same"),
    ("pyfb-page-token-missing", "the same body but for its id, classed otherwise by what had been asked"),
];

fn judge_line(line: &Value) -> Outcome {
    let text = |key: &str| line[key].as_str().expect("a text");
    let body = text("body").as_bytes().to_vec();
    let told = line["http_status"].as_u64().and_then(|status| u16::try_from(status).ok());
    let status = told.unwrap_or(if is_error_shape(&body) { 400 } else { 200 });
    let headers = line["headers"].as_object().expect("an object");
    let headers =
        headers.iter().map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned())).collect();
    let endpoint = Endpoint::parse(text("endpoint")).unwrap_or(Endpoint::Exchange);
    judge(endpoint, &Answer { status, headers, body, truncated: false }, Timestamp::UNIX_EPOCH).outcome
}

#[test]
fn real_answers_are_read_as_a_person_reads_them() {
    let (mut lines, mut agreed) = (0, 0);
    for line in CORPUS.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let (id, class) = (line["id"].as_str().expect("an id"), line["class"].as_str().expect("a class"));
        let outcome = judge_line(&line);
        lines += 1;
        if outcome.name() == class {
            agreed += 1;
            continue;
        }
        println!("{id}: {class} by hand, {outcome} by rule");
        assert!(KNOWN_DISAGREEMENTS.iter().any(|(known, _)| *known == id), "`{id}` is a new disagreement");
        let passing = ["transient", "rate_limited"].contains(&class);
        assert!(!(passing && outcome == Outcome::NeedsReconnect), "`{id}`: what passes is taken for a dead token");
        assert!(!(class == "needs_reconnect" && outcome == Outcome::Transient), "`{id}`: a dead token seems to pass");
    }
    println!("{agreed} of {lines} agree");
    assert!(agreed * 100 >= lines * 95);
}

#[test]
fn known_disagreements_still_disagree() {
    for (id, _) in KNOWN_DISAGREEMENTS {
        let line = CORPUS
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("a line of JSON"))
            .find(|line| line["id"] == id)
            .expect("a line of the corpus");
        assert_eq!(judge_line(&line), Outcome::Unrecognised, "{id}");
    }
}
