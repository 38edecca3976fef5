//! `weir schema`: the shape of configs, for editors.
//!
//! In: which one; out: JSON Schema (or the reference page) on standard output.

use crate::config::schemas::{reference_page, schema_config, schema_rate_card};
use std::io::Write;
use std::process::ExitCode;

/// What `weir schema` can print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// JSON Schema of a pipeline file.
    #[default]
    Config,
    /// JSON Schema of a rate card.
    RateCard,
    /// Every key with type, default and meaning, as Markdown.
    Reference,
}

/// Prints it; exit 1 if standard output is gone.
pub fn run(which: Which) -> ExitCode {
    let text = match which {
        Which::Config => format!("{:#}\n", schema_config()),
        Which::RateCard => format!("{:#}\n", schema_rate_card()),
        Which::Reference => reference_page(),
    };
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}
