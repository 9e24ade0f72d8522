//! Instants on the wire: exactly as PostgreSQL keeps them, never as text, never through a session's zone.
//!
//! PostgreSQL counts whole microseconds since 2000-01-01 UTC, and marks the two infinities by the ends of
//! the range. Binding and reading that number is exact for every date that a row can hold, where arithmetic
//! with intervals goes through floating point.

use jiff::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// 2000-01-01 UTC, in microseconds since 1970.
const EPOCH_US: i64 = 946_684_800_000_000;

/// `timestamptz` and its array, whose numbers are fixed in every server.
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);

/// An instant as PostgreSQL has it, in microseconds since 1970; the ends of `i64` are the infinities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PgTime(pub(super) i64);

impl PgTime {
    /// As the policy counts: an infinity, and a year that jiff does not know, is the end of time.
    pub(super) fn timestamp(self) -> Timestamp {
        let end = if self.0 > 0 { Timestamp::MAX } else { Timestamp::MIN };
        Timestamp::from_microsecond(self.0).unwrap_or(end)
    }
}

impl From<Timestamp> for PgTime {
    fn from(at: Timestamp) -> Self {
        Self(at.as_microsecond())
    }
}

impl Type<Postgres> for PgTime {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        ty.oid() == Some(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for PgTime {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for PgTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let wire = match self.0 {
            i64::MIN | i64::MAX => self.0,
            finite => finite.saturating_sub(EPOCH_US),
        };
        buffer.extend_from_slice(&wire.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for PgTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("an instant came as text".into());
        }
        let wire = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        Ok(Self(match wire {
            i64::MIN | i64::MAX => wire,
            finite => finite.saturating_add(EPOCH_US),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_calendar_knows_is_the_end_of_time() {
        assert_eq!(PgTime(i64::MAX).timestamp(), Timestamp::MAX);
        assert_eq!(PgTime(i64::MIN).timestamp(), Timestamp::MIN);
        assert_eq!(PgTime(0).timestamp(), Timestamp::UNIX_EPOCH);
        assert_eq!(PgTime::from(Timestamp::UNIX_EPOCH).0, 0);
    }
}
