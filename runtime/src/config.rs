//! Configuration files: YAML into a serde struct that refuses unknown fields.

use std::path::{Path, PathBuf};

use serde::{Serialize, de::DeserializeOwned};

/// A configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not valid; the message has line, column and the fields that exist.
    #[error("{}:{position}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// `line:column`, or `1:1` where the parser does not tell.
        position: String,
        /// Why.
        source: yaml_serde::Error,
    },
}

/// Reads and checks a configuration file.
///
/// # Errors
/// `ConfigError`, with the file's name and, for bad content, line and column.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    yaml_serde::from_str(&text).map_err(|source| {
        let position = source.location().map_or("1:1".to_owned(), |l| format!("{}:{}", l.line(), l.column()));
        ConfigError::Parse { path: path.to_owned(), position, source }
    })
}

/// The effective configuration as YAML, for `--dump-config`.
#[must_use]
pub fn dump<T: Serialize>(config: &T) -> String {
    yaml_serde::to_string(config).expect("configuration structs hold nothing that YAML cannot express")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Example {
        name: String,
    }

    #[test]
    fn errors_name_file_line_and_field() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("example.yaml");
        std::fs::write(&path, "name: east\nnmae: west\n").unwrap();
        let message = load::<Example>(&path).unwrap_err().to_string();
        assert!(message.contains("example.yaml:2:1"), "{message}");
        assert!(message.contains("nmae") && message.contains("name"), "{message}");
        let message = load::<Example>(&directory.path().join("missing.yaml")).unwrap_err().to_string();
        assert!(message.contains("missing.yaml"), "{message}");
    }
}
