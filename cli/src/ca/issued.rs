//! What the authority issued: the memory behind revocation.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    CaError,
    files::{self, NewFile},
};

/// `issued.yaml`
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issued {
    /// In the order in which they were made.
    pub(crate) certificates: Vec<IssuedCertificate>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuedCertificate {
    /// Hexadecimal.
    pub(crate) serial: String,
    /// Whose it is.
    pub(crate) subject: String,
    /// The common name of the authority that signed it.
    pub(crate) authority: String,
    /// Until when it is good, in seconds since 1970.
    pub(crate) not_after: i64,
    /// Since when it is not good any more, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<i64>,
}

impl Issued {
    /// Reads the list; a directory without one has an empty list.
    pub(crate) fn load(directory: &Path) -> Result<Self, CaError> {
        let path = path(directory);
        match fs::read_to_string(&path) {
            Ok(text) => yaml_serde::from_str(&text).map_err(|source| CaError::Issued { path, source }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(CaError::Read { path, source }),
        }
    }

    /// Writes the list, as a whole.
    pub(crate) fn save(&self, directory: &Path) -> Result<(), CaError> {
        files::place(directory, &[self.file(directory)], true)?;
        Ok(())
    }

    /// The list as a file to be written.
    pub(crate) fn file(&self, directory: &Path) -> NewFile {
        let content = yaml_serde::to_string(self).expect("texts and numbers can be written as YAML");
        NewFile { path: path(directory), content, private: false }
    }

    /// Those of an authority that can still be used.
    pub(crate) fn good(&self, now: i64) -> impl Iterator<Item = &IssuedCertificate> {
        self.certificates.iter().filter(move |one| one.revoked_at.is_none() && one.not_after > now)
    }
}

fn path(directory: &Path) -> PathBuf {
    directory.join("issued.yaml")
}
