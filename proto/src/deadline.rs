//! Until when a caller waits.

use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

/// For callers that do not say.
pub const DEFAULT: Duration = Duration::from_secs(10);
/// Nobody keeps a call open longer.
const MAXIMUM: Duration = Duration::from_secs(60);
/// The answer must reach the caller before it gives up.
const MARGIN: Duration = Duration::from_millis(100);

/// The moment at which an answer, if only a reason, must be given: a little before the caller's own `grpc-timeout` ends.
#[must_use]
pub fn of(metadata: &MetadataMap) -> Instant {
    let timeout = metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
    within(timeout)
}

/// As `of`, for a caller that waits for `timeout`, where it says so.
#[must_use]
pub fn within(timeout: Option<Duration>) -> Instant {
    let timeout = timeout.unwrap_or(DEFAULT).min(MAXIMUM);
    Instant::now() + timeout.saturating_sub(MARGIN.min(timeout / 4))
}

/// gRPC over HTTP/2, "Timeout": up to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u32 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(u64::from(number) * 3600)),
        "M" => Some(Duration::from_secs(u64::from(number) * 60)),
        "S" => Some(Duration::from_secs(number.into())),
        "m" => Some(Duration::from_millis(number.into())),
        "u" => Some(Duration::from_micros(number.into())),
        "n" => Some(Duration::from_nanos(number.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_as_grpc_writes_them() {
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("4999999u"), Some(Duration::from_micros(4_999_999)));
        for bad in ["", "S", "5", "5x", "123456789S", "-1S", "5€"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
