//! `ringfence ca`: makes the mesh's certificates.

use std::path::PathBuf;

use clap::Subcommand;

use crate::{
    ca::{self, Subject},
    output::{self, Format},
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
    /// Takes all certificates of the subjects back; ca.crt, which carries the list, must reach every process then.
    Revoke {
        /// Where the authority is.
        #[arg(long = "dir", value_name = "DIR")]
        directory: PathBuf,
        /// member/ID, gateway/CLUSTER, agent/CLUSTER/NODE, admin/NAME or reader/NAME.
        #[arg(value_name = "SUBJECT", required = true)]
        subjects: Vec<Subject>,
    },
    /// Makes a new authority beside the old one; both are trusted until --finish drops the old one.
    Rotate {
        /// Where the authority is.
        #[arg(long = "dir", value_name = "DIR")]
        directory: PathBuf,
        /// Drops the old authority.
        #[arg(long)]
        finish: bool,
        /// Finishes also where somebody has only a certificate of the old authority.
        #[arg(long, requires = "finish")]
        force: bool,
    },
    /// The authorities and all that they issued, with what is left of their time.
    Show {
        /// Where the authority is.
        #[arg(long = "dir", value_name = "DIR")]
        directory: PathBuf,
    },
}

/// Makes the files and prints their paths.
pub(crate) fn run(command: CaCommand, format: Format) -> anyhow::Result<()> {
    let files = match command {
        CaCommand::Init { directory, force, subjects } => ca::init(&directory, &subjects, force)?,
        CaCommand::Issue { directory, force, subjects } => ca::issue(&directory, &subjects, force)?,
        CaCommand::Revoke { directory, subjects } => {
            let (bundle, count) = ca::revoke(&directory, &subjects)?;
            output::note(&format!("{count} certificates revoked: give every process the new {}", bundle.display()));
            vec![bundle]
        }
        CaCommand::Rotate { directory, finish: false, .. } => {
            let files = ca::rotate(&directory)?;
            output::note(
                "both authorities are trusted where the new ca.crt is. Next: give it to every process, then make every \
                 certificate anew with 'ringfence ca issue --force', then 'ringfence ca rotate --finish'",
            );
            files
        }
        CaCommand::Rotate { directory, finish: true, force } => vec![ca::finish(&directory, force)?],
        CaCommand::Show { directory } => return print(format, &ca::show(&directory)?),
    };
    for file in files {
        output::line(&file.display().to_string())?;
    }
    Ok(())
}

fn print(format: Format, all: &[ca::Shown]) -> anyhow::Result<()> {
    let row = |one: &ca::Shown| {
        let days = one.days_left.to_string();
        [one.subject.clone(), one.state.to_owned(), days, one.serial.clone(), one.authority.clone()]
    };
    let header = ["SUBJECT", "STATE", "DAYS LEFT", "SERIAL", "AUTHORITY"];
    output::print(format, &all, || output::table(header, all.iter().map(row)))
}
