//! Reads compressed rotated files as the bytes that were compressed: gzip (also several members) and zstd.
//!
//! In: a file whose first bytes say that it is compressed. Out: its bytes, in order, from the start; whoever goes on
//! at an offset reads up to it and throws away. A file that ends in the middle may still be being written: that is told apart from
//! its end. Memory: the decompressor's window, 32 KiB for gzip and at most 128 MiB for zstd, what its own tool accepts.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Gzip,
    Zstd,
    /// bzip2 or xz: known, and not read.
    Other,
}

/// How a file is compressed, by its first bytes; `None`: it is not.
pub fn packing(head: &[u8]) -> Option<Packing> {
    match head {
        [0x1f, 0x8b, 8, ..] => Some(Packing::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packing::Zstd),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..] | [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Packing::Other),
        _ => None,
    }
}

/// A file's bytes before compression.
pub struct Unpacker {
    reader: Box<dyn Read + Send>,
    file: File,
    packing: Packing,
    /// Decompressed bytes handed out so far.
    pub offset: u64,
    /// Compressed size when the end was reached in the middle of something.
    torn_at: Option<u64>,
    /// Told by the next read: bytes came before it.
    damage: Option<io::Error>,
}

/// What lies behind the bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    More,
    End,
    /// It ends in the middle: somebody may still be writing it.
    Torn,
}

impl Unpacker {
    pub fn open(file: &File, packing: Packing) -> io::Result<Unpacker> {
        let file = file.try_clone()?;
        Ok(Unpacker { reader: decompressor(&file, packing)?, file, packing, offset: 0, torn_at: None, damage: None })
    }

    /// Fills the buffer as far as it goes. Damaged bytes are an error of kind `InvalidData`.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Rest)> {
        if let Some(damage) = self.damage.take() {
            return Err(damage);
        }
        if let Some(size) = self.torn_at {
            if self.file.metadata()?.len() <= size {
                return Ok((0, Rest::Torn));
            }
            self.start_again()?;
        }
        let mut len = 0;
        while len < buffer.len() {
            match self.reader.read(&mut buffer[len..]) {
                Ok(0) => return Ok((len, Rest::End)),
                Ok(n) => {
                    len += n;
                    self.offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || error.to_string().contains("incomplete frame") => {
                    self.torn_at = Some(self.file.metadata()?.len());
                    return Ok((len, Rest::Torn));
                }
                Err(error) => {
                    let damage = io::Error::new(io::ErrorKind::InvalidData, error);
                    if len == 0 {
                        return Err(damage);
                    }
                    // What was decompressed before the damage is good.
                    self.damage = Some(damage);
                    return Ok((len, Rest::More));
                }
            }
        }
        Ok((len, Rest::More))
    }

    /// The file has grown: a decompressor that saw its end cannot go on, a new one reads up to where it was.
    fn start_again(&mut self) -> io::Result<()> {
        let offset = self.offset;
        self.reader = decompressor(&self.file, self.packing)?;
        self.offset = 0;
        self.torn_at = None;
        self.skip_to(offset).map(|_| ())
    }

    /// Reads up to `offset` and throws away. Whether it is that long.
    pub fn skip_to(&mut self, offset: u64) -> io::Result<bool> {
        let mut waste = vec![0; 64 << 10];
        while self.offset < offset {
            let room = waste.len().min((offset - self.offset) as usize);
            let (len, rest) = self.read(&mut waste[..room])?;
            if len < room && rest != Rest::More {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn decompressor(file: &File, packing: Packing) -> io::Result<Box<dyn Read + Send>> {
    let reader = BufReader::with_capacity(64 << 10, At { file: file.try_clone()?, offset: 0 });
    Ok(match packing {
        Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
        Packing::Other => return Err(io::Error::new(io::ErrorKind::Unsupported, "compressed with bzip2 or xz; gzip and zstd are read")),
    })
}

/// Reads a file from an offset of its own: a descriptor's offset is shared by all who cloned it.
struct At {
    file: File,
    offset: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.file.read_at(buffer, self.offset)?;
        self.offset += len as u64;
        Ok(len)
    }
}

/// The size before compression as the file itself states it, modulo 2^32 for gzip; `None` where it does not.
/// Right for a file of one member or frame; for others it is some number, so a match is a hint only together with a matching head.
pub fn stated_size(file: &File, packing: Packing, size: u64) -> Option<u64> {
    match packing {
        Packing::Gzip => {
            let mut bytes = [0; 4];
            file.read_exact_at(&mut bytes, size.checked_sub(4)?).ok()?;
            Some(u64::from(u32::from_le_bytes(bytes)))
        }
        Packing::Zstd => {
            let mut header = [0; 18];
            let len = file.read_at(&mut header, 0).ok()?;
            zstd_content_size(&header[..len])
        }
        Packing::Other => None,
    }
}

/// Frame_Content_Size of RFC 8878, section 3.1.1.1.
fn zstd_content_size(header: &[u8]) -> Option<u64> {
    let descriptor = *header.get(4)?;
    let single = descriptor >> 5 & 1 == 1;
    let dictionary = [0, 1, 2, 4][(descriptor & 3) as usize];
    let at = 5 + usize::from(!single) + dictionary;
    let len = match descriptor >> 6 {
        0 if !single => return None,
        flag => 1 << flag,
    };
    let bytes = header.get(at..at + len)?;
    let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Some(if len == 2 { number + 256 } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn text() -> Vec<u8> {
        (0..50_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect()
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("room");
        file
    }

    fn read_all(unpacker: &mut Unpacker) -> (Vec<u8>, Rest) {
        let mut all = Vec::new();
        let mut buffer = vec![0; 10_007];
        loop {
            let (len, rest) = unpacker.read(&mut buffer).expect("not damaged");
            all.extend_from_slice(&buffer[..len]);
            if rest != Rest::More {
                return (all, rest);
            }
        }
    }

    #[test]
    fn members_and_frames_one_after_the_other_are_one_text() {
        let text = text();
        let (a, b) = text.split_at(100_000);
        let gz = [gzip(a), gzip(b)].concat();
        let zst = [zstd::encode_all(a, 1).unwrap(), zstd::encode_all(b, 3).unwrap()].concat();
        for bytes in [gz, zst] {
            let packing = packing(&bytes).expect("compressed");
            let mut unpacker = Unpacker::open(&file(&bytes), packing).unwrap();
            assert_eq!(read_all(&mut unpacker), (text.clone(), Rest::End));
            let mut unpacker = Unpacker::open(&file(&bytes), packing).unwrap();
            assert!(unpacker.skip_to(123_456).unwrap());
            assert_eq!(read_all(&mut unpacker).0, text[123_456..]);
        }
    }

    #[test]
    fn a_file_that_is_still_being_written_is_read_on_when_it_grows() {
        let text = text();
        for bytes in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap()] {
            let packing = packing(&bytes).expect("compressed");
            for cut in [20, bytes.len() / 2, bytes.len() - 1] {
                let mut file = file(&bytes[..cut]);
                let mut unpacker = Unpacker::open(&file, packing).unwrap();
                let (mut all, rest) = read_all(&mut unpacker);
                assert_eq!(rest, Rest::Torn, "cut at {cut}");
                assert_eq!(read_all(&mut unpacker), (Vec::new(), Rest::Torn), "nothing new");
                file.write_all(&bytes[cut..]).unwrap();
                let (more, rest) = read_all(&mut unpacker);
                all.extend(more);
                assert!(all == text && rest == Rest::End, "cut at {cut}");
            }
        }
    }

    #[test]
    fn the_stated_size_is_the_size() {
        for len in [0, 10, 255, 256, 300, 65_535, 70_000] {
            let text = vec![b'x'; len];
            let gz = gzip(&text);
            assert_eq!(stated_size(&file(&gz), Packing::Gzip, gz.len() as u64), Some(len as u64));
            let zst = zstd::bulk::compress(&text, 1).unwrap();
            assert_eq!(stated_size(&file(&zst), Packing::Zstd, zst.len() as u64), Some(len as u64), "{len}");
        }
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let mut bytes = gzip(&text());
        let middle = bytes.len() / 2;
        bytes[middle..middle + 100].fill(0xff);
        let mut unpacker = Unpacker::open(&file(&bytes), Packing::Gzip).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let (len, _) = unpacker.read(&mut buffer).expect("what stands before the damage is good");
        // A fast compressor's blocks are short: some of them are whole.
        assert!(len > 10_000 && text().starts_with(&buffer[..10_000]));
        assert_eq!(unpacker.read(&mut buffer).map_err(|e| e.kind()), Err(io::ErrorKind::InvalidData));
    }
}
