//! The `syslog` source: messages by UDP and TCP, each one record.
//!
//! In: datagrams; connections whose messages are counted or end with a line (`framing`). Out: one line of JSON for each message
//! (`record`), with `peer`, the address it came from. Bound: `message_bytes_max`, `connections_max`, `buffer_bytes_max`. Syslog
//! has no answer: a message is taken when it is read. Where there is no room, TCP waits, and its senders with it; UDP cannot, so
//! what comes is dropped and counted, like what the kernel drops before it is read.

mod framing;
mod record;

use super::config::SyslogConfig;
use super::push::{Connected, Pipe, Refusal, Stats};
use crate::env;
use framing::Framer;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// The largest datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// Lines that are handed over at once.
const BATCH_BYTES: usize = 64 << 10;
/// What one read of a connection asks for.
const READ_BYTES: usize = 16 << 10;
/// How often the kernel is asked what it dropped.
const KERNEL: Duration = Duration::from_secs(1);

/// What messages are taken from.
pub struct Gate {
    pub config: SyslogConfig,
    /// As config says; empty: everybody.
    pub allow: Vec<Range>,
    pub pipe: Arc<Pipe>,
    pub stats: Arc<Stats>,
    /// The process ends.
    pub ends: AtomicBool,
}

impl Gate {
    /// Whether messages from this address are taken.
    fn allows(&self, peer: IpAddr) -> bool {
        self.allow.is_empty() || self.allow.iter().any(|range| range.contains(peer))
    }

    /// One message as a line.
    fn put(&self, message: &[u8], peer: IpAddr, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{{\"peer\":\"{}\",", peer.to_canonical()).as_bytes());
        let brace = out.len();
        record::record(message, env::now().0, out);
        out.remove(brace);
        out.push(b'\n');
    }

    fn push(&self, lines: &[u8]) -> Result<(), Refusal> {
        let held = self.stats.budget.take(lines.len() as u64).ok_or(Refusal::Full)?;
        self.pipe.push(lines.to_vec(), held).map(drop)
    }
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    address: IpAddr,
    bits: u32,
}

impl Range {
    /// Reads `10.0.0.0/8`, or a single address.
    pub fn parse(text: &str) -> Option<Range> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok()).filter(|bits| *bits <= most)?;
        Some(Range { address, bits })
    }

    fn contains(&self, peer: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| (a ^ b).checked_shr(width - self.bits).unwrap_or(0) == 0;
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => same(u128::from(u32::from(ours)), u128::from(u32::from(theirs)), 32),
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.into(), theirs.into(), 128),
            _ => false,
        }
    }
}

pub async fn serve_udp(socket: UdpSocket, gate: Arc<Gate>) {
    let mut datagram = vec![0; DATAGRAM_BYTES];
    let mut lines = Vec::with_capacity(BATCH_BYTES);
    let (mut kernel, mut asked) = (0, tokio::time::Instant::now());
    loop {
        // At least once a second, to ask the kernel.
        let ready = tokio::time::timeout(KERNEL, socket.readable()).await;
        let mut messages = 0;
        while ready.is_ok() && lines.len() < BATCH_BYTES {
            let Ok((bytes, peer)) = socket.try_recv_from(&mut datagram) else { break };
            if !gate.allows(peer.ip()) {
                gate.stats.count("not_allowed", 1);
                continue;
            }
            let message = &datagram[..bytes.min(gate.config.message_bytes_max.0 as usize)];
            gate.stats.count("cut", u64::from(message.len() < bytes));
            gate.put(message, peer.ip(), &mut lines);
            messages += 1;
        }
        if messages > 0 {
            let result = if gate.push(&lines).is_ok() { "messages" } else { "dropped_full" };
            gate.stats.count(result, messages);
            lines.clear();
        }
        if asked.elapsed() >= KERNEL {
            asked = tokio::time::Instant::now();
            let dropped = kernel_drops(&socket).unwrap_or(kernel);
            gate.stats.count("dropped_by_kernel", dropped.saturating_sub(kernel));
            kernel = dropped;
        }
        // Others have their turn, too.
        tokio::task::yield_now().await;
    }
}

/// Datagrams that found no room in the socket, as the kernel tells.
fn kernel_drops(socket: &UdpSocket) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_string();
    for table in ["/proc/self/net/udp", "/proc/self/net/udp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        // Columns: sl local remote st queues tr retrnsmt uid timeout inode ref pointer drops.
        let ours =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|columns| columns.get(9) == Some(&inode.as_str()));
        if let Some(columns) = ours {
            return columns.get(12)?.parse().ok();
        }
    }
    None
}

pub async fn serve_tcp(listener: TcpListener, gate: Arc<Gate>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // No descriptors left, most likely: others end.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if !gate.allows(peer.ip()) {
            gate.stats.count("not_allowed", 1);
            continue;
        }
        let Some(connected) = Connected::new(&gate.stats, gate.config.connections_max) else {
            gate.stats.count("connections_max", 1);
            continue;
        };
        let gate = Arc::clone(&gate);
        tokio::spawn(async move {
            read_connection(&stream, peer, &gate).await;
            drop(connected);
        });
    }
}

async fn read_connection(stream: &TcpStream, peer: SocketAddr, gate: &Gate) {
    let mut framer = Framer::new(gate.config.message_bytes_max.0 as usize);
    let mut buffer = vec![0; READ_BYTES];
    let (mut lines, mut messages, mut cut) = (Vec::new(), 0, 0);
    let mut ends = false;
    while !ends {
        if stream.readable().await.is_err() {
            return;
        }
        let mut take = |message: &[u8]| {
            gate.put(message, peer.ip(), &mut lines);
            messages += 1;
        };
        match stream.try_read(&mut buffer) {
            Ok(0) => {
                framer.finish(&mut take);
                ends = true;
            }
            Ok(bytes) => framer.push(&buffer[..bytes], &mut take),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // Reset: what had come before it counts.
            Err(_) => {
                framer.finish(&mut take);
                ends = true;
            }
        }
        gate.stats.count("cut", framer.cut - cut);
        cut = framer.cut;
        while messages > 0 {
            match gate.push(&lines) {
                Ok(()) => gate.stats.count("messages", messages),
                Err(Refusal::Full) if !gate.ends.load(Ordering::Relaxed) => {
                    gate.pipe.room().await;
                    continue;
                }
                Err(_) => {
                    gate.stats.count("dropped_at_end", messages);
                    return;
                }
            }
            lines.clear();
            messages = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_addresses_that_begin_alike() {
        for (range, peer, want) in [
            ("10.0.0.0/8", "10.200.1.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "1.2.3.4", false),
        ] {
            assert_eq!(Range::parse(range).unwrap().contains(peer.parse().unwrap()), want, "{peer} in {range}");
        }
        for text in ["", "10.0.0.0/33", "10.0.0/8", "fd00::/129", "10.0.0.0/-1", "host"] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }
}
