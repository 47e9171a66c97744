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
/// the store never do. A status with a cause was made on this side, whatever its code: a connection that the other side
/// closed with `ENHANCE_YOUR_CALM` comes as `resource_exhausted`.
#[must_use]
pub fn is_out_of_reach(status: &Status) -> bool {
    let is_transport_fault = status.source().is_some();
    is_transport_fault
        || matches!(
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

    #[test]
    fn a_fault_of_the_connection_is_no_refusal_of_the_store() {
        let mut closed = Status::resource_exhausted("h2 protocol error: too many resets");
        assert!(!is_out_of_reach(&closed), "the store refuses with this code, too");
        closed.set_source(std::sync::Arc::new(std::io::Error::other("connection closed: ENHANCE_YOUR_CALM")));
        assert!(is_out_of_reach(&closed));
        assert!(!is_out_of_reach(&Status::permission_denied("a reader only reads")));
    }
}
