//! What can be wrong with certificate files.

use std::{io, path::PathBuf};

/// A certificate file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read the TLS {what} {}: {source} ('ringfence ca' makes certificates)", path.display())]
    Read {
        /// Which of the three.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("the TLS {what} {} holds no PEM block '{expected}'", path.display())]
    NotPem {
        /// Which of the three.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// A block is there, and what is in it is not right.
    #[error("the TLS {what} {} cannot be used: {reason}", path.display())]
    Content {
        /// Which of the three.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: Wrong,
    },
}

/// What is wrong inside a file.
#[derive(Debug, thiserror::Error)]
pub enum Wrong {
    /// Not X.509, or damaged.
    #[error("a certificate in it is damaged")]
    Certificate,
    /// Refused by the TLS library: a key of another certificate, an unknown algorithm.
    #[error("{0}")]
    Rustls(#[from] rustls::Error),
    /// The authorities and lists do not make a verifier.
    #[error("{0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}
