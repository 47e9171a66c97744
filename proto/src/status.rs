//! What a failed call says about itself.

use std::error::Error;

use tonic::{Code, Status};

/// A status in words, with the causes it carries: tonic keeps "connection refused" two levels down.
#[must_use]
pub fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Whether another server might still answer: broken and cut-off connections come as any of these codes, refusals of
/// the store never do.
#[must_use]
pub fn is_out_of_reach(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Transport {
        source: std::io::Error,
    }

    #[test]
    fn every_cause_is_told_once() {
        let source = std::io::Error::other("connection refused");
        let status = Status::from_error(Box::new(Transport { source }));
        assert_eq!(describe(&status), "transport error: connection refused");
        assert_eq!(describe(&Status::not_found("no such policy")), "no such policy");
    }
}
