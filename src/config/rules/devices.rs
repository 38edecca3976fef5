//! What only makes sense together in sources that measure this machine: intervals, windows, whose things are.
//!
//! In: the config of a source; out: mistakes at their line and column.

use super::super::locate::Path;
use super::{MIB, Rules};
use crate::sources::gpu::GpuConfig;
use crate::sources::host::{self, HostConfig};
use device::facts::Accountant;
use flow::tenancy::TENANT_BYTES_MAX;
use flow::units::NANOS_PER_SECOND;

impl Rules<'_> {
    pub(super) fn gpu(&mut self, at: &Path, gpu: &GpuConfig) {
        self.span(&at.key("interval"), gpu.interval, NANOS_PER_SECOND / 10, 60 * NANOS_PER_SECOND);
        self.span(&at.key("gap_max"), gpu.gap_max, gpu.interval.0.max(NANOS_PER_SECOND), 3600 * NANOS_PER_SECOND);
        self.span(&at.key("deadline"), gpu.deadline, NANOS_PER_SECOND / 10, 600 * NANOS_PER_SECOND);
        self.size(&at.key("buffer_bytes_max"), gpu.buffer_bytes_max, MIB, u64::MAX);
        if let Err(what) = Accountant::new(gpu.options("weir.gpu"))
            && !self.damaged(at)
        {
            self.at(&at.key("window"), format!("is {}; {what}; write 1m", gpu.window));
        }
        if gpu.recording.is_some() && gpu.library.is_some() && !self.damaged(at) {
            self.at(&at.key("library"), "stands beside a recording, which is replayed in place of devices; leave one of them out");
        }
        for (i, rule) in gpu.processes.iter().enumerate() {
            let at = at.key("processes").index(i);
            if rule.command.is_none() && rule.user.is_none() && rule.cgroup.is_none() && !self.damaged(&at) {
                self.at_key(&at, "it names no process; a rule has a command, a user or a control group; write command: trainer");
            }
            if rule.tenant.trim().is_empty() || rule.tenant.len() > TENANT_BYTES_MAX {
                let rule = format!("somebody pays for what a process uses, in 1 to {TENANT_BYTES_MAX} bytes");
                self.at(&at.key("tenant"), format!("is no tenant; {rule}; write its name"));
            }
        }
    }

    pub(super) fn host(&mut self, at: &Path, host: &HostConfig) {
        self.span(&at.key("interval"), host.interval, NANOS_PER_SECOND / 10, 600 * NANOS_PER_SECOND);
        self.span(&at.key("gap_max"), host.gap_max, host.interval.0.max(NANOS_PER_SECOND), 3600 * NANOS_PER_SECOND);
        self.size(&at.key("buffer_bytes_max"), host.buffer_bytes_max, MIB, u64::MAX);
        if let Some(what) = host::mistake(host)
            && !self.damaged(at)
        {
            self.at(&at.key("window"), format!("is {}; {what}; write 1m", host.window));
        }
    }
}
