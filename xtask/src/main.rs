//! `cargo xtask …`: everything that is done with this repository beside `cargo build`.
//!
//! `demo`, `chaos`: setup ► build ► ringfence-demo; `test`: fmt, clippy, tests, tidy, verify-ebpf, demo ► one summary.

mod bench;
mod chaos;
mod demo;
mod setup;
mod shell;
mod test;
mod tidy;
mod verify_ebpf;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Three clusters on this machine, policies, a partition, two kills; every expectation is checked.
    Demo(demo::Arguments),
    /// Drills that last as long as one can afford.
    Chaos(chaos::Arguments),
    /// Everything that CI runs.
    Test,
    /// Checks the allowed dependencies and the style budget.
    Tidy,
    /// Compiles the eBPF programs and compares them with the committed objects.
    VerifyEbpf(verify_ebpf::Arguments),
    /// Runs benches and prints one table.
    Bench(bench::Arguments),
    /// Installs the system commands that the demo needs.
    Setup,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Chaos(arguments) => chaos::run(&arguments),
        Task::Test => test::run(),
        Task::Tidy => tidy::run(),
        Task::VerifyEbpf(arguments) => verify_ebpf::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Setup => setup::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
