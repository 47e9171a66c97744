//! The local API's Unix socket: for root only, and for one agent at a time.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// A bound socket. The file is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    listener: Option<UnixListener>,
    /// Held for the life of the process, so that of two agents exactly one gets through.
    _lock: File,
}

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent runs with this socket.
    #[error("another agent already listens on {} (socket): stop it first, or give this one another socket", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{} (socket) exists and is not a socket: remove it, or give the agent another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The directory or the files in it cannot be used.
    #[error("cannot make the socket {} (socket): {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Socket {
    /// Takes the path; a socket file that an earlier agent left is replaced.
    ///
    /// # Errors
    /// `SocketError`; whoever has the path keeps it.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io { path: path.to_owned(), source };
        if let Some(directory) = directory(path) {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let lock = lock(path)?;
        remove_stale(path)?;
        let listener = bind_private(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { path: path.to_owned(), listener: Some(listener), _lock: lock })
    }

    /// The listener; none the second time.
    pub(crate) const fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // A file that stays is replaced by the next agent.
        drop(fs::remove_file(&self.path));
    }
}

/// A path beside the socket.
pub(crate) fn beside(socket: &Path, suffix: &str) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Makes sure that no agent uses the socket, for as long as the answer lives.
///
/// # Errors
/// `SocketError::InUse` if one does.
pub(crate) fn lock(path: &Path) -> Result<File, SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let lock = File::create(beside(path, ".lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io { path: path.to_owned(), source };
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

/// Binds in a directory that nobody else can enter and moves the socket out once its mode is right: at no time can
/// anybody but the owner connect.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let private = beside(path, ".new");
    if private.exists() {
        fs::remove_dir_all(&private)?;
    }
    DirBuilder::new().mode(0o700).create(&private)?;
    let inside = private.join("s");
    let listener = UnixListener::bind(&inside)?;
    fs::set_permissions(&inside, Permissions::from_mode(0o600))?;
    fs::rename(&inside, path)?;
    fs::remove_dir(&private)?;
    Ok(listener)
}

fn directory(path: &Path) -> Option<&Path> {
    path.parent().filter(|directory| !directory.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_at_a_time_and_stale_files_are_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/agent.sock");
        let first = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = Socket::bind(&path).unwrap_err();
        assert!(matches!(refused, SocketError::InUse { .. }), "{refused}");
        assert!(path.exists());
        drop(first);
        assert!(!path.exists());

        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "an agent that was killed leaves the file");
        let second = Socket::bind(&path).unwrap();
        drop(second);

        let somebody = UnixListener::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::InUse { .. })));
        drop(somebody);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
