//! gRPC around a unary call: the frame of its message, status codes, the text of a status in trailers.
//!
//! In: the body of a request or response. Out: its one message, or why there is none. Nothing is allocated for a length that is only
//! claimed. Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.

use std::fmt;

pub const CONTENT_TYPE: &str = "application/grpc";

/// Bytes in front of a message: a flag and its length.
const HEAD_BYTES: usize = 5;

/// Why a body is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// It ends before the message does; an empty body has none.
    Short,
    /// The message is longer than allowed: RESOURCE_EXHAUSTED.
    TooLarge,
    /// The first byte is neither 0 nor 1.
    Flag,
    /// Something follows the message: a unary call has one.
    More,
}

impl FrameError {
    pub fn code(self) -> Code {
        match self {
            FrameError::TooLarge => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::Short => "the body ends before its message does",
            FrameError::TooLarge => "the message is longer than the limit",
            FrameError::Flag => "the first byte of a frame is 0, or 1 if the message is compressed",
            FrameError::More => "a unary call has one message, and more bytes follow it",
        })
    }
}

impl std::error::Error for FrameError {}

/// Takes the message out of a unary body: whether it is compressed, and its bytes.
pub fn unframe(body: &[u8], bytes_max: usize) -> Result<(bool, &[u8]), FrameError> {
    let (head, message) = body.split_first_chunk::<HEAD_BYTES>().ok_or(FrameError::Short)?;
    let [flag, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    match () {
        () if flag > 1 => Err(FrameError::Flag),
        () if length > bytes_max => Err(FrameError::TooLarge),
        () if length > message.len() => Err(FrameError::Short),
        () if length < message.len() => Err(FrameError::More),
        () => Ok((flag == 1, message)),
    }
}

/// Puts a message of less than 4 GiB into a frame.
pub fn frame(is_compressed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("bodies are bounded far below 4 GiB");
    let mut out = Vec::with_capacity(HEAD_BYTES + message.len());
    out.push(u8::from(is_compressed));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// Whether a `Content-Type` is one of gRPC with protobuf: `application/grpc`, also with `+proto` or parameters.
pub fn is_content_type(value: &str) -> bool {
    let media = value.split(';').next().unwrap_or_default().trim();
    [CONTENT_TYPE, "application/grpc+proto"].iter().any(|known| media.eq_ignore_ascii_case(known))
}

/// What a call came to. Source: <https://grpc.io/docs/guides/status-codes>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    pub const ALL: [Code; 17] = [
        Code::Ok,
        Code::Cancelled,
        Code::Unknown,
        Code::InvalidArgument,
        Code::DeadlineExceeded,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::ResourceExhausted,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::Unimplemented,
        Code::Internal,
        Code::Unavailable,
        Code::DataLoss,
        Code::Unauthenticated,
    ];

    pub fn number(self) -> u8 {
        self as u8
    }

    /// Reads `grpc-status`; what is no known code is `Unknown`.
    pub fn parse(text: &str) -> Code {
        text.parse::<usize>().ok().and_then(|number| Code::ALL.get(number).copied()).unwrap_or(Code::Unknown)
    }

    /// The status of HTTP that says the same. Source: `google/rpc/code.proto`.
    pub fn http_status(self) -> u16 {
        match self {
            Code::Ok => 200,
            Code::Cancelled => 499,
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
            Code::DeadlineExceeded => 504,
            Code::NotFound => 404,
            Code::AlreadyExists | Code::Aborted => 409,
            Code::PermissionDenied => 403,
            Code::Unauthenticated => 401,
            Code::ResourceExhausted => 429,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::Unknown | Code::Internal | Code::DataLoss => 500,
        }
    }

    /// Whether an exporter may send the same request again. `has_retry_info`: the status says when.
    pub fn is_retryable(self, has_retry_info: bool) -> bool {
        match self {
            Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => true,
            Code::ResourceExhausted => has_retry_info,
            _ => false,
        }
    }
}

/// Writes `grpc-message`: all but printable ASCII, and `%`, percent-encoded.
pub fn encode_message(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// Reads `grpc-message`; what is encoded wrongly stays as it stands.
pub fn decode_message(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let is_encoded = bytes[at] == b'%' && bytes.get(at + 1..at + 3).is_some_and(|digits| super::text::hex_into(digits, &mut out));
        if !is_encoded {
            out.push(bytes[at]);
        }
        at += if is_encoded { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_holds_one_message() {
        for (body, want) in [
            (&b""[..], Err(FrameError::Short)),
            (b"\0\0\0\0", Err(FrameError::Short)),
            (b"\0\0\0\0\0", Ok((false, &b""[..]))),
            (b"\x01\0\0\0\x02ab", Ok((true, b"ab"))),
            (b"\0\0\0\0\x03ab", Err(FrameError::Short)),
            (b"\0\0\0\0\x01ab", Err(FrameError::More)),
            (b"\x02\0\0\0\x02ab", Err(FrameError::Flag)),
            (b"\0\xff\xff\xff\xffab", Err(FrameError::TooLarge)),
            (b"\0\0\0\0\x09123456789", Err(FrameError::TooLarge)),
        ] {
            assert_eq!(unframe(body, 8), want, "{body:?}");
        }
    }

    #[test]
    fn exporters_retry_what_may_pass() {
        let retried: Vec<u8> = Code::ALL.into_iter().filter(|code| code.is_retryable(false)).map(Code::number).collect();
        assert_eq!(retried, [1, 4, 10, 11, 14, 15]);
        assert!(Code::ResourceExhausted.is_retryable(true));
        for code in Code::ALL {
            assert_eq!(Code::parse(&code.number().to_string()), code);
        }
        assert_eq!((Code::parse("17"), Code::parse("-1"), Code::parse("")), (Code::Unknown, Code::Unknown, Code::Unknown));
    }

    #[test]
    fn content_types_of_grpc() {
        for (value, want) in [
            ("application/grpc", true),
            ("Application/GRPC+proto; x=1", true),
            ("application/grpc+json", false),
            ("application/grpc-web", false),
        ] {
            assert_eq!(is_content_type(value), want, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_framed_is_unframed(message: Vec<u8>, is_compressed: bool) {
            let framed = frame(is_compressed, &message);
            prop_assert_eq!(unframe(&framed, message.len()), Ok((is_compressed, message.as_slice())));
        }

        #[test]
        fn messages_come_back(text: String) {
            let encoded = encode_message(&text);
            prop_assert!(encoded.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode_message(&encoded), text.as_str());
            let _ = decode_message(&text);
        }
    }
}
