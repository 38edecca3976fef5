//! Numbers and arrays as bytes: little-endian, fixed width, arrays whole.
//!
//! Writing appends to a buffer. Reading checks each length against the bytes that are there before it allocates, so
//! that damaged input costs an error and never more memory than a small multiple of its own size.

use std::fmt;

/// Bytes that are no valid encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    pub what: &'static str,
    /// Offset in the encoding where reading stood.
    pub at: usize,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Corrupt {}

pub fn put_u32(out: &mut Vec<u8>, n: u32) {
    out.extend_from_slice(&n.to_le_bytes());
}

pub fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

pub fn put_i64(out: &mut Vec<u8>, n: i64) {
    out.extend_from_slice(&n.to_le_bytes());
}

/// Writes a number of things. More than 2^32 of anything do not fit a frame; `Frame::validate` refuses them first.
pub fn put_len(out: &mut Vec<u8>, n: usize) {
    put_u32(out, n as u32);
}

pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

macro_rules! arrays {
    ($($put:ident $get:ident $t:ty),*) => {$(
        /// Writes the elements without their number; compiles to a copy on little-endian machines.
        pub fn $put(out: &mut Vec<u8>, values: &[$t]) {
            const W: usize = size_of::<$t>();
            let start = out.len();
            out.resize(start + values.len() * W, 0);
            for (bytes, value) in out[start..].chunks_exact_mut(W).zip(values) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }

        impl Reader<'_> {
            /// Reads `n` elements.
            pub fn $get(&mut self, n: usize) -> Result<Vec<$t>, Corrupt> {
                const W: usize = size_of::<$t>();
                let bytes = self.take(n.checked_mul(W).ok_or_else(|| self.corrupt("too many elements"))?)?;
                Ok(bytes.chunks_exact(W).map(|b| <$t>::from_le_bytes(b.try_into().expect("chunks are W long"))).collect())
            }
        }
    )*};
}
arrays!(put_u16s u16s u16, put_u32s u32s u32, put_u64s u64s u64, put_i64s i64s i64);

pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub fn corrupt(&self, what: &'static str) -> Corrupt {
        Corrupt { what, at: self.at }
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Corrupt> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..n).ok_or_else(|| self.corrupt("ends too early"))?;
        self.at += n;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        Ok(self.take(N)?.try_into().expect("take returns N bytes"))
    }

    pub fn u8(&mut self) -> Result<u8, Corrupt> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Corrupt> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Corrupt> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, Corrupt> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn i128(&mut self) -> Result<i128, Corrupt> {
        self.array().map(i128::from_le_bytes)
    }

    /// A number of things that take at least `least_bytes` each: no more than the rest can hold.
    pub fn count(&mut self, least_bytes: usize) -> Result<usize, Corrupt> {
        let n = self.u32()? as usize;
        if n > (self.bytes.len() - self.at) / least_bytes.max(1) {
            return Err(self.corrupt("counts more than there is"));
        }
        Ok(n)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Corrupt> {
        let n = self.count(1)?;
        self.take(n)
    }

    pub fn text(&mut self) -> Result<String, Corrupt> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.corrupt("text is no UTF-8"))
    }

    pub fn end(&self) -> Result<(), Corrupt> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.corrupt("has bytes behind its end")) }
    }
}
