//! What does the machine itself say, and which tenant used how much of its CPU and memory?
//!
//! [`Sampler`] looks below a root (`/proc`, `/sys`) and gives a [`HostReading`]; [`metrics`] writes it as records under the names of
//! node_exporter and cAdvisor; [`Facts`] adds readings up to usage events by window, owner by owner, and puts what nobody owns beside
//! them, so that all of them together are the machine. Files are hostile: bounded, never waited for; what cannot be read is a named
//! fault of its reading and takes nothing else with it.

pub mod cgroup;
pub mod facts;
mod files;
mod metrics;
mod proc;
mod reading;
mod sampler;

pub use cgroup::Cgroup;
pub use facts::{Facts, FactsOptions, FactsState};
pub use metrics::metrics;
pub use reading::{Cpu, Disk, Filesystem, HostReading, Interface, Pressure, Request, Uname};
pub use sampler::{HostOptions, Sampler};
