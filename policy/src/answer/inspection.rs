//! Reads what `debug_token` says of a token, under `data` or not nested at all.
//!
//! <https://developers.facebook.com/docs/graph-api/reference/debug_token>

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Inspected, InspectedExpiry};

/// The inspection in a body; `None` if it has no `is_valid`.
pub(super) fn read(body: &Value) -> Option<Inspected> {
    let data = body.get("data").filter(|data| data.is_object()).unwrap_or(body).as_object()?;
    let valid = match data.get("is_valid")? {
        Value::Bool(valid) => *valid,
        Value::String(text) if text.eq_ignore_ascii_case("true") => true,
        Value::String(text) if text.eq_ignore_ascii_case("false") => false,
        _ => return None,
    };
    let expires = match seconds(data, "expires_at") {
        Some(0) => InspectedExpiry::Never,
        Some(at) => instant(at).map_or(InspectedExpiry::Unknown, InspectedExpiry::At),
        None => InspectedExpiry::Unknown,
    };
    let app_id = match data.get("app_id") {
        Some(Value::String(id)) => Some(id.clone()),
        Some(Value::Number(id)) => Some(id.to_string()),
        _ => None,
    };
    Some(Inspected {
        valid,
        expires,
        data_access_expires_at: seconds(data, "data_access_expires_at").and_then(instant),
        issued_at: seconds(data, "issued_at").and_then(instant),
        app_id,
    })
}

fn seconds(data: &Map<String, Value>, key: &str) -> Option<i64> {
    match data.get(key)? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn instant(seconds: i64) -> Option<Timestamp> {
    (seconds > 0).then(|| Timestamp::from_second(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_never_for_the_token_and_nothing_for_data_access() {
        let body =
            serde_json::json!({"data": {"is_valid": true, "expires_at": 0, "data_access_expires_at": 0, "app_id": 17}});
        let read = read(&body).expect("an inspection");
        assert_eq!(read.expires, InspectedExpiry::Never);
        assert_eq!(read.data_access_expires_at, None);
        assert_eq!(read.app_id.as_deref(), Some("17"));
    }

    #[test]
    fn absurd_instants_are_unknown() {
        for at in [serde_json::json!(i64::MAX), serde_json::json!(-5), serde_json::json!(1e30), serde_json::json!([])] {
            let body = serde_json::json!({"is_valid": true, "expires_at": at});
            assert_eq!(read(&body).expect("an inspection").expires, InspectedExpiry::Unknown, "{body}");
        }
    }

    #[test]
    fn without_a_verdict_there_is_no_inspection() {
        assert_eq!(read(&serde_json::json!({"data": {"expires_at": 5}})), None);
        assert_eq!(read(&serde_json::json!({"data": {"is_valid": 1}})), None);
        assert_eq!(read(&serde_json::json!([])), None);
    }
}
