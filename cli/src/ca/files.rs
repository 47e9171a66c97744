//! Files that appear whole or not at all.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

/// A file to be made.
#[derive(Debug)]
pub(crate) struct NewFile {
    /// Where.
    pub(crate) path: PathBuf,
    /// What is in it.
    pub(crate) content: String,
    /// Only the owner may read it (mode 0600), otherwise everybody (0644).
    pub(crate) private: bool,
}

/// A file cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// Something has the name.
    #[error("{} exists already: --force replaces it", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot make {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Files that are written, under names that are not theirs yet. Those that do not get further are removed.
struct Staged(Vec<(PathBuf, PathBuf)>);

impl Drop for Staged {
    fn drop(&mut self) {
        for (temporary, _) in &self.0 {
            // Gone already where the file got its own name.
            drop(fs::remove_file(temporary));
        }
    }
}

/// Makes the directory (for its owner only) and all files, or none of them; returns their paths.
///
/// # Errors
/// `FileError::Exists` unless `replace`, `FileError::Io`. Without `replace` nothing has changed then.
pub(crate) fn place(directory: &Path, files: &[NewFile], replace: bool) -> Result<Vec<PathBuf>, FileError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError::Io { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io(directory))?;
    if !replace && let Some(file) = files.iter().find(|file| file.path.symlink_metadata().is_ok()) {
        return Err(FileError::Exists { path: file.path.clone() });
    }
    let mut staged = Staged(Vec::new());
    for file in files {
        let temporary = temporary(&file.path);
        staged.0.push((temporary.clone(), file.path.clone()));
        write(&temporary, file).map_err(io(&file.path))?;
    }
    if replace {
        for (temporary, path) in &staged.0 {
            fs::rename(temporary, path).map_err(io(path))?;
        }
    } else {
        link(&staged.0)?;
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io(directory))?;
    Ok(files.iter().map(|file| file.path.clone()).collect())
}

/// Gives files their names; a hard link never replaces what is there, whoever else is at work.
fn link(files: &[(PathBuf, PathBuf)]) -> Result<(), FileError> {
    for (index, (temporary, path)) in files.iter().enumerate() {
        if let Err(source) = fs::hard_link(temporary, path) {
            for (_, placed) in &files[..index] {
                // The first error is the one to tell.
                drop(fs::remove_file(placed));
            }
            let path = path.clone();
            return Err(match source.kind() {
                ErrorKind::AlreadyExists => FileError::Exists { path },
                _ => FileError::Io { path, source },
            });
        }
    }
    Ok(())
}

fn write(path: &Path, file: &NewFile) -> io::Result<()> {
    let mode = if file.private { 0o600 } else { 0o644 };
    let mut output = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    output.write_all(file.content.as_bytes())?;
    output.sync_all()
}

/// In the same directory, and not taken by another process.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(directory: &Path, name: &str, content: &str) -> NewFile {
        NewFile { path: directory.join(name), content: content.to_owned(), private: name.ends_with(".key") }
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn all_files_or_none() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("new/tls");
        place(&directory, &[file(&directory, "a.key", "a"), file(&directory, "a.crt", "b")], false).unwrap();
        let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("a.key"), mode("a.crt") & 0o600), (0o700, 0o600, 0o600));

        let more = [file(&directory, "b.crt", "x"), file(&directory, "a.key", "y")];
        let error = place(&directory, &more, false).unwrap_err();
        assert!(matches!(&error, FileError::Exists { path } if path.ends_with("a.key")), "{error}");
        assert_eq!(names(&directory), ["a.crt", "a.key"]);
        assert_eq!(fs::read(directory.join("a.key")).unwrap(), b"a");

        place(&directory, &more, true).unwrap();
        assert_eq!(names(&directory), ["a.crt", "a.key", "b.crt"]);
        assert_eq!(fs::read(directory.join("a.key")).unwrap(), b"y");
        assert_eq!(mode("a.key"), 0o600);
    }

    #[test]
    fn a_link_that_fails_takes_the_earlier_ones_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["one", "two", "taken"] {
            fs::write(path(name), name).unwrap();
        }
        let error = link(&[(path("one"), path("first")), (path("two"), path("taken"))]).unwrap_err();
        assert!(matches!(error, FileError::Exists { .. }), "{error}");
        assert_eq!(names(directory.path()), ["one", "taken", "two"]);
        assert_eq!(fs::read(path("taken")).unwrap(), b"taken");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("file"), "").unwrap();
        let directory = parent.path().join("file/tls");
        assert!(matches!(place(&directory, &[], false), Err(FileError::Io { .. })));

        let long = "x".repeat(300);
        let files = [file(parent.path(), "a.crt", "a"), file(parent.path(), &long, "b")];
        assert!(matches!(place(parent.path(), &files, false), Err(FileError::Io { .. })));
        assert_eq!(names(parent.path()), ["file"]);
    }
}
