//! weir: a log and metrics pipeline processor. One binary: a node agent and an aggregator.
//!
//! Read ARCHITECTURE.md first; then `runtime` (the run), `sources` and `sinks` (the ends of the line), `plan`
//! and `config` (what was asked for), `desk` (questions and answers), `cli` (the face).
#![deny(unsafe_code)]

mod api;
mod books;
mod cli;
mod config;
mod desk;
mod durable;
mod env;
mod examples;
mod grpc;
mod heap;
mod history;
mod import;
mod inquiry;
mod metrics;
mod plan;
mod promql;
mod runtime;
mod secrets;
mod sinks;
mod sources;
mod statement;

fn main() -> std::process::ExitCode {
    heap::keep_freed();
    cli::main()
}
