//! Taking certificates back.

use std::path::{Path, PathBuf};

use super::{
    CaError, Subject, bundle,
    files::{self, NewFile},
    issued::Issued,
    unix_now,
};

/// Revokes every certificate that was issued to the subjects and is still good; returns the bundle that everybody needs
/// now, and how many were revoked.
///
/// # Errors
/// `CaError`; nothing has changed then.
pub(crate) fn revoke(directory: &Path, subjects: &[Subject]) -> Result<(PathBuf, usize), CaError> {
    let (bundle, mut issued, now) = (bundle::read(directory)?, Issued::load(directory)?, unix_now()?);
    let mut count = 0;
    for subject in subjects.iter().map(ToString::to_string) {
        let before = count;
        for one in &mut issued.certificates {
            if one.subject == subject && one.revoked_at.is_none() && one.not_after > now {
                one.revoked_at = Some(now);
                count += 1;
            }
        }
        if count == before {
            return Err(CaError::NotIssued { subject });
        }
    }
    let content = bundle.text(directory, &issued, now)?;
    let trust = NewFile { path: bundle.path.clone(), content, private: false };
    files::place(directory, &[issued.file(directory), trust], true)?;
    Ok((bundle.path, count))
}
