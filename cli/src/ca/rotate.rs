//! A new authority takes the place of the old one, without a moment in which anybody is locked out.
//!
//! ```text
//! rotate   ca.crt: new, old   ca.key: new   ca-old.key: old      everybody trusts both; certificates are made anew
//! finish   ca.crt: new        ca.key: new                        the old one's certificates are worth nothing
//! ```

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{
    CaError, authority_paths,
    bundle::{self, Authority, Bundle},
    files::{self, NewFile},
    issued::Issued,
    load_authority, new_authority, read, unix_now,
};

/// Makes a new authority beside the one that is there; returns the files that changed.
///
/// # Errors
/// `CaError`; nothing has changed then.
pub(crate) fn rotate(directory: &Path) -> Result<Vec<PathBuf>, CaError> {
    let (certificate, key) = authority_paths(directory);
    let (mut bundle, issued, now) = (bundle::read(directory)?, Issued::load(directory)?, unix_now()?);
    if bundle.authorities.len() > 1 {
        return Err(CaError::Rotating { path: bundle.path });
    }
    // The old key must be there and fit: it signs revocation lists until the rotation is finished.
    load_authority(directory, &certificate, &key)?;
    let old_key = NewFile { path: bundle::old_key(directory), content: read(&key, directory)?, private: true };
    files::place(directory, &[old_key], true)?;
    let new = new_authority()?;
    bundle.authorities.insert(0, Authority { pem: new.pem(), der: new.der().clone() });
    let content = bundle.text(directory, &issued, now)?;
    let changed = [
        NewFile { path: key, content: new.key().serialize_pem(), private: true },
        NewFile { path: certificate, content, private: false },
    ];
    Ok(files::place(directory, &changed, true)?)
}

/// Drops the old authority; returns the bundle that everybody needs now.
///
/// # Errors
/// `CaError`, unless `force` also where somebody has only a certificate of the old one; nothing has changed then.
pub(crate) fn finish(directory: &Path, force: bool) -> Result<PathBuf, CaError> {
    let (bundle, issued, now) = (bundle::read(directory)?, Issued::load(directory)?, unix_now()?);
    let Bundle { path, authorities } = bundle;
    if authorities.len() < 2 {
        return Err(CaError::NotRotating { path });
    }
    let new = Bundle { path: path.clone(), authorities: authorities.into_iter().take(1).collect() };
    let current = new.names().remove(0);
    let subjects = |of_new: bool| -> BTreeSet<&str> {
        let good = issued.good(now).filter(|one| (one.authority == current) == of_new);
        good.map(|one| one.subject.as_str()).collect()
    };
    let (with_new, with_old) = (subjects(true), subjects(false));
    let left: Vec<&str> = with_old.difference(&with_new).copied().collect();
    if !left.is_empty() && !force {
        return Err(CaError::StillOld { subjects: left.join(", ") });
    }
    let content = new.text(directory, &issued, now)?;
    files::place(directory, &[NewFile { path: path.clone(), content, private: false }], true)?;
    let old_key = bundle::old_key(directory);
    fs::remove_file(&old_key).map_err(|source| files::FileError::Io { path: old_key, source })?;
    Ok(path)
}
