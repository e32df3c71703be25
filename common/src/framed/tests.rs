use proptest::prelude::*;
use tokio::io::{AsyncWriteExt, ReadBuf, duplex};

use super::*;

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn packets_pass_in_order_through_a_narrow_pipe() {
    run(async {
        let (near, far) = duplex(100);
        let mut writer = FrameWriter::new(near);
        writer.push_packet(Bytes::from(vec![1; 5000]));
        writer.push_packet_parts(&[2; 40], Bytes::from(vec![3; 60_000]));
        writer.push(&Frame::Ping(9));
        let sender = tokio::spawn(async move { writer.flush().await.unwrap() });
        let mut reader = FrameReader::new(far);
        assert!(reader.preamble(NoiseLimit::default()).await.unwrap().is_empty());
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Packet(vec![1; 5000].into())));
        let second = [vec![2; 40], vec![3; 60_000]].concat();
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Packet(second.into())));
        assert_eq!(reader.next().await.unwrap(), Some(Frame::Ping(9)));
        sender.await.unwrap();
        assert_eq!(reader.next().await.unwrap(), None);
    });
}

#[test]
fn noise_before_the_preamble_is_skipped_and_returned() {
    run(async {
        let (mut near, far) = duplex(64);
        let noise = b"Welcome!\nLast login: today\n\0gh-ne";
        let sender = tokio::spawn(async move {
            near.write_all(noise).await.unwrap();
            near.write_all(&PREAMBLE).await.unwrap();
        });
        let mut reader = FrameReader::new(far);
        assert_eq!(reader.preamble(NoiseLimit::default()).await.unwrap(), noise);
        sender.await.unwrap();
    });
}

/// A stream that gives one byte a read. Searching all of the noise again at each byte would take minutes.
struct OneByOne<'a>(&'a [u8]);

impl AsyncRead for OneByOne<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some((first, rest)) = self.0.split_first() {
            out.put_slice(&[*first]);
            self.0 = rest;
        }
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_preamble_is_found_when_it_comes_byte_by_byte() {
    run(async {
        for noise in [&b""[..], b"x", b"Welcome!\0gh-n", &[b'x'; 300_000]] {
            let stream = [noise, &PREAMBLE, &[6, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7]].concat();
            let mut reader = FrameReader::new(OneByOne(&stream));
            let limit = NoiseLimit { bytes: 300_000, ..NoiseLimit::default() };
            assert_eq!(reader.preamble(limit).await.unwrap(), noise);
            assert_eq!(reader.next().await.unwrap(), Some(Frame::Ping(7)));
        }
    });
}

#[test]
fn silence_ends_in_time_and_says_what_came() {
    run(async {
        let (mut near, far) = duplex(64);
        near.write_all(b"Password:").await.unwrap();
        let error = FrameReader::new(far).preamble(NoiseLimit::default()).await.unwrap_err().to_string();
        assert!(error.contains("within 20 seconds"), "{error}");
        assert!(error.contains("Password:"), "{error}");
        drop(near);
    });
}

#[test]
fn an_endless_banner_is_cut_off() {
    run(async {
        let (mut near, far) = duplex(4096);
        let flood = tokio::spawn(async move { while near.write_all(&[0; 4096]).await.is_ok() {} });
        let mut reader = FrameReader::new(far);
        let error = reader.preamble(NoiseLimit::default()).await.unwrap_err();
        assert!(
            matches!(&error, PreambleError::Noise(seen) if seen.len() <= 2 * NoiseLimit::default().bytes)
        );
        drop(reader);
        flood.await.unwrap();
    });
}

#[test]
fn an_end_instead_of_a_preamble_is_reported() {
    run(async {
        let (mut near, far) = duplex(64);
        near.write_all(b"bash: gh-net-sidecar: command not found\n").await.unwrap();
        drop(near);
        let error = FrameReader::new(far).preamble(NoiseLimit::default()).await.unwrap_err().to_string();
        assert!(error.contains("command not found"), "{error}");
    });
}

#[test]
fn packets_that_are_kept_share_their_memory() {
    run(async {
        let (near, far) = duplex(1 << 20);
        let mut writer = FrameWriter::new(near);
        let mut reader = FrameReader::new(far);
        writer.flush().await.unwrap();
        reader.preamble(NoiseLimit::default()).await.unwrap();
        let mut kept = Vec::new();
        for _ in 0..100 {
            writer.push_packet(Bytes::from_static(&[7; 1000]));
            writer.flush().await.unwrap();
            let Ok(Some(Frame::Packet(packet))) = reader.next().await else { panic!() };
            kept.push(packet);
        }
        // Adjacent in one buffer, separated only by the header.
        let apart = |two: &[Bytes]| two[1].as_ptr() as usize - two[0].as_ptr() as usize;
        assert!(kept.windows(2).all(|two| apart(two) == 1000 + HEADER_LEN));
    });
}

#[test]
fn an_end_within_a_frame_is_an_error() {
    run(async {
        let (mut near, far) = duplex(64);
        near.write_all(&[4, 0, 0, 9, 1, 2]).await.unwrap();
        drop(near);
        assert!(matches!(FrameReader::new(far).next().await, Err(ReadError::Truncated)));
    });
}

proptest! {
    #[test]
    fn any_stream_of_bytes_ends_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        run(async {
            let mut reader = FrameReader::new(&bytes[..]);
            if reader.preamble(NoiseLimit::default()).await.is_ok() {
                while let Ok(Some(_)) = reader.next().await {}
            }
        });
    }
}
