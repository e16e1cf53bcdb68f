//! Reads and writes Ethernet frames as QEMU's stream sockets carry them: each behind its length, four bytes, big-endian.
//!
//! Format: QEMU's net/net.c, `net_fill_rstate`, which `-netdev stream` and `-netdev socket` share.
use std::io::{self, ErrorKind, Read, Write};

/// The longest frame that QEMU sends or takes (net/net.h, `NET_BUFSIZE`).
pub const LONGEST: usize = 4096 + 65536;

/// The next frame; `None` where the other end closed between two frames.
///
/// # Errors
/// The other end closed inside a frame, or named a length that no frame has: the stream cannot be followed further.
pub fn read(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut filled = 0;
    while filled < length.len() {
        match stream.read(&mut length[filled..]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > LONGEST {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    let mut frame = vec![0; length];
    stream.read_exact(&mut frame)?;
    Ok(Some(frame))
}

/// Writes one frame.
///
/// # Errors
/// It is longer than [`LONGEST`], or the other end is gone.
pub fn write(stream: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    if frame.len() > LONGEST {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("a frame of {} bytes", frame.len())));
    }
    // LONGEST fits into 32 bits.
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    #[track_caller]
    fn check(bytes: &[u8], want: &Result<Option<Vec<u8>>, ErrorKind>) {
        assert_eq!(&read(&mut &bytes[..]).map_err(|error| error.kind()), want);
    }

    #[test]
    fn a_stream_ends_between_frames_or_is_refused() {
        check(&[], &Ok(None));
        check(&[0, 0, 0, 2, 7, 8, 9], &Ok(Some(vec![7, 8])));
        check(&[0, 0], &Err(ErrorKind::UnexpectedEof));
        check(&[0, 0, 0, 2, 7], &Err(ErrorKind::UnexpectedEof));
        check(&[0, 0, 0, 0], &Err(ErrorKind::InvalidData));
        check(&[0, 1, 0x10, 1], &Err(ErrorKind::InvalidData));
        check(&[0xff; 8], &Err(ErrorKind::InvalidData));
        assert!(write(&mut Vec::new(), &[0; LONGEST + 1]).is_err());
    }

    proptest! {
        #[test]
        fn frames_come_back_as_they_went(frames in vec(vec(any::<u8>(), 1..200), 0..20)) {
            let mut bytes = Vec::new();
            for frame in &frames {
                write(&mut bytes, frame).unwrap();
            }
            let mut stream = &bytes[..];
            for frame in &frames {
                assert_eq!(read(&mut stream).unwrap().as_ref(), Some(frame));
            }
            assert!(read(&mut stream).unwrap().is_none());
        }

        #[test]
        fn any_bytes_are_read_to_an_end(bytes in vec(any::<u8>(), 0..400)) {
            let mut stream = &bytes[..];
            while let Ok(Some(frame)) = read(&mut stream) {
                assert!(!frame.is_empty() && frame.len() <= bytes.len());
            }
        }
    }
}
