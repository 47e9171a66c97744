//! `ringfence ca`: makes the mesh's certificates.

use std::path::PathBuf;

use clap::Subcommand;

use crate::{
    ca::{self, Subject},
    output,
};

/// The mesh's certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Makes a certificate authority (ca.crt, ca.key) and certificates for the subjects.
    Init {
        /// Where the files are; made if it is not there.
        #[arg(long = "dir", value_name = "DIR")]
        directory: PathBuf,
        /// Replaces files that exist, the authority too.
        #[arg(long)]
        force: bool,
        /// member/ID, gateway/CLUSTER, agent/CLUSTER/NODE, admin/NAME or reader/NAME.
        #[arg(value_name = "SUBJECT")]
        subjects: Vec<Subject>,
    },
    /// Makes more certificates with the authority of the directory.
    Issue {
        /// Where the authority is, and the new files will be.
        #[arg(long = "dir", value_name = "DIR")]
        directory: PathBuf,
        /// Replaces certificates that exist.
        #[arg(long)]
        force: bool,
        /// member/ID, gateway/CLUSTER, agent/CLUSTER/NODE, admin/NAME or reader/NAME.
        #[arg(value_name = "SUBJECT", required = true)]
        subjects: Vec<Subject>,
    },
}

/// Makes the files and prints their paths.
pub(crate) fn run(command: CaCommand) -> anyhow::Result<()> {
    let files = match command {
        CaCommand::Init { directory, force, subjects } => ca::init(&directory, &subjects, force)?,
        CaCommand::Issue { directory, force, subjects } => ca::issue(&directory, &subjects, force)?,
    };
    for file in files {
        output::line(&file.display().to_string())?;
    }
    Ok(())
}
