//! One module per command.

pub(crate) mod agent;
mod apply;
pub(crate) mod bpf;
pub(crate) mod ca;
mod diff;
pub(crate) mod endpoint;
mod expectations;
mod explain;
mod files;
mod flow_end;
mod get;
mod list;
pub(crate) mod monitor;
mod policy;
mod reference;
mod selectors;
mod settings;
mod sources;
mod status;
pub(crate) mod store;
mod test_expectations;
mod validate;
mod wait;

use crate::{
    args::{Arguments, Command},
    connect::Servers,
    failure::Failure,
};

/// Runs the command that was asked for.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { global, command } = arguments;
    let output = global.output;
    let kind = match command {
        Command::Ca(command) => return Ok(ca::run(command, output)?),
        Command::Agent(command) => return agent::run(command, &global).await,
        Command::Monitor(arguments) => return monitor::run(*arguments, &global).await,
        Command::Bpf(command) => return bpf::run(command, &global).await,
        Command::Policy(command) => return policy::run(command, &global).await,
        Command::Store(command) => return store::run(command, &global).await,
        Command::Status => return status::run(&mut Servers::new(&global)?, output).await,
        Command::Settings(command) => return settings::run(command, &mut Servers::new(&global)?).await,
        Command::Get { kind, consistency } => {
            return get::run(kind, consistency, &mut Servers::new(&global)?, output).await;
        }
        Command::Identity(command) => (list::identities as list::Show, command),
        Command::Endpoint(command) => return endpoint::run(command, &global).await,
        Command::Cluster(command) => (list::clusters as list::Show, command),
        Command::Node(command) => return list::run_nodes(&command, &mut Servers::new(&global)?, output).await,
    };
    let (show, command) = kind;
    list::run(show, &command, &mut Servers::new(&global)?, output).await
}
