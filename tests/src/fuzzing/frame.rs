//! The decoder of frames, the first thing that a hostile other side meets.

use bytes::BytesMut;
use gh_net_common::frame::{Frame, FrameError, HEADER_LEN, MAX_PAYLOAD};

use super::Input;

/// The first byte says in what pieces the rest arrives. However it is cut, the same frames come out; none
/// panics, none makes the buffer grow without bound, and each survives being sent on, and so does one in a numbered one.
pub fn frame(data: &[u8]) {
    let mut input = Input(data);
    let piece = usize::from(input.u8()) + 1;
    let stream = input.0;
    let whole = decode([stream]);
    assert_eq!(decode(stream.chunks(piece)), whole, "in pieces of {piece} bytes");
    for frame in whole.0 {
        survives(&frame);
        if let Frame::Numbered(_, inner) = &frame
            && let Ok(Some(inner)) = Frame::decode_numbered(inner.clone())
        {
            assert!(!inner.is_of_link(), "{inner:?} has a number");
            survives(&inner);
        }
    }
}

fn survives(frame: &Frame) {
    let sent = encode(frame);
    let (received, error) = decode([&sent[..]]);
    assert_eq!(error, None, "{frame:?} is refused when it is sent on");
    let [received] = &received[..] else { panic!("{frame:?} becomes {} frames", received.len()) };
    assert_eq!(encode(received), sent, "{frame:?} changes on its way");
}

fn encode(frame: &Frame) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    bytes
}

/// All frames of a stream that comes in these pieces, and the error that ends it.
fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match Frame::decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(buffer.len() < HEADER_LEN + MAX_PAYLOAD, "{} bytes wait for one frame", buffer.len());
    }
    (frames, None)
}
