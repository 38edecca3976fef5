//! Decompression of bodies, within limits: a small body may say a lot.
//!
//! In: a body and what `Content-Encoding` says. Out: its bytes, or why not. Bound: `bytes_max`, asked for in steps of 64 KiB
//! before they are there (`room`), so that a bomb stops at the limit and at what the source may hold; zstd's window is 8 MiB.

use super::lines::Bad;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use std::io::Read;

/// zstd needs a window of so many bytes; `zstd --long` makes larger ones.
const WINDOW_LOG_MAX: u32 = 23;
const STEP_BYTES: usize = 64 << 10;

/// Decompresses. `room` is asked for each step and says whether it may be taken.
pub fn unpack(encoding: &str, body: Vec<u8>, bytes_max: usize, room: &mut dyn FnMut(u64) -> bool) -> Result<Vec<u8>, Bad> {
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body),
        "gzip" | "x-gzip" => read(MultiGzDecoder::new(&body[..]), "gzip", bytes_max, room),
        "deflate" => read(ZlibDecoder::new(&body[..]), "deflate", bytes_max, room),
        "zstd" => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).and_then(|mut decoder| {
                decoder.window_log_max(WINDOW_LOG_MAX)?;
                Ok(decoder)
            });
            read(decoder.map_err(|error| Bad::new(400, format!("the body is no zstd: {error}")))?, "zstd", bytes_max, room)
        }
        "snappy" => snappy(&body, bytes_max, room),
        other => {
            let shown: String = other.chars().take(40).collect();
            Err(Bad::new(415, format!("Content-Encoding {shown:?} is not read; send gzip, zstd, deflate, snappy or none")))
        }
    }
}

/// One block of snappy, without frames: what Loki's clients send.
pub fn snappy(body: &[u8], bytes_max: usize, room: &mut dyn FnMut(u64) -> bool) -> Result<Vec<u8>, Bad> {
    let broken = |error: snap::Error| Bad::new(400, format!("the body is no block of snappy: {error}"));
    let bytes = snap::raw::decompress_len(body).map_err(broken)?;
    if bytes > bytes_max {
        return Err(too_large(bytes_max));
    }
    if !room(bytes as u64) {
        return Err(no_room());
    }
    snap::raw::Decoder::new().decompress_vec(body).map_err(broken)
}

fn read(mut from: impl Read, what: &str, bytes_max: usize, room: &mut dyn FnMut(u64) -> bool) -> Result<Vec<u8>, Bad> {
    let mut out = Vec::new();
    loop {
        if !room(STEP_BYTES as u64) {
            return Err(no_room());
        }
        let had = out.len();
        out.resize(had + STEP_BYTES, 0);
        let mut filled = had;
        while filled < out.len() {
            match from.read(&mut out[filled..]) {
                Ok(0) => {
                    out.truncate(filled);
                    return if out.len() > bytes_max { Err(too_large(bytes_max)) } else { Ok(out) };
                }
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Bad::new(400, format!("the body is no {what}, or is cut off, behind byte {filled}: {error}"))),
            }
        }
        if out.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
    }
}

pub fn too_large(bytes_max: usize) -> Bad {
    Bad::new(413, format!("the body is larger than {bytes_max} bytes, which holds after decompression, too; send less at once"))
}

pub fn no_room() -> Bad {
    Bad::new(503, "weir holds as much as it may; send it again in a moment")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn unpacked(encoding: &str, body: Vec<u8>) -> Result<Vec<u8>, u16> {
        let mut left = 400_000i64;
        unpack(encoding, body, 300_000, &mut |bytes| {
            left -= bytes as i64;
            left >= 0
        })
        .map_err(|bad| bad.status)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bodies_are_read_as_they_are_packed() {
        let text = b"a line\n".repeat(30_000);
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        let snappy = snap::raw::Encoder::new().compress_vec(&text).unwrap();
        for (encoding, body) in [("", text.clone()), ("identity", text.clone()), ("GZIP ", gzip(&text)), ("zstd", zstd), ("snappy", snappy)]
        {
            assert_eq!(unpacked(encoding, body), Ok(text.clone()), "{encoding}");
        }
        let two = [gzip(b"one\n"), gzip(b"two\n")].concat();
        assert_eq!(unpacked("gzip", two), Ok(b"one\ntwo\n".to_vec()));
    }

    #[test]
    fn bombs_and_broken_bodies_are_refused() {
        let bomb = vec![0; 1 << 20];
        let torn = gzip(&b"line\n".repeat(1000));
        for (encoding, body, status) in [
            ("gzip", gzip(&bomb), 413),
            ("zstd", zstd::encode_all(&bomb[..], 1).unwrap(), 413),
            ("snappy", snap::raw::Encoder::new().compress_vec(&bomb).unwrap(), 413),
            ("gzip", torn[..torn.len() / 2].to_vec(), 400),
            ("gzip", b"no gzip".to_vec(), 400),
            ("zstd", b"no zstd".to_vec(), 400),
            ("snappy", b"\xff\xff\xff\xff\xff\xff".to_vec(), 400),
            ("br", b"".to_vec(), 415),
        ] {
            assert_eq!(unpacked(encoding, body), Err(status), "{encoding}");
        }
        assert_eq!(unpack("gzip", gzip(b"x"), 100, &mut |_| false), Err(no_room()));
    }
}
