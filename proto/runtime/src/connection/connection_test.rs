//! Tests of a block stream between two ends of a pipe.

use std::io;

use bytes::Bytes;
use doldam_proto::frame::codec;
use doldam_proto::frame::header::{FrameKind, HEADER_BYTES};
use doldam_proto::wire::{BlockFailure, WriteProgress};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

pub(super) const OURS: ClusterId = ClusterId([7; 16]);
pub(super) const DEADLINES: Deadlines = Deadlines {
    connect: Duration::from_secs(3),
    progress: Duration::from_secs(30),
    idle: Duration::from_mins(2),
};

pub(super) fn over(stream: DuplexStream) -> BlockConnection {
    BlockConnection::over(Box::new(stream), "node:1".into(), OURS, DEADLINES)
}

/// Two ends that have not yet exchanged a byte, over a pipe of `room` bytes each way.
pub(super) fn pair(room: usize) -> (BlockConnection, BlockConnection) {
    let (one, other) = duplex(room);
    (over(one), over(other))
}

/// A connection whose peer has sent its handshake and then whatever the test writes.
pub(super) async fn with_raw_peer() -> (BlockConnection, DuplexStream) {
    let (one, mut other) = duplex(1 << 20);
    other.write_all(&handshake::encode(OURS)).await.unwrap();
    (over(one), other)
}

pub(super) fn progress(received: u64) -> WriteProgress {
    WriteProgress { received, ..WriteProgress::default() }
}

fn encoded(message: &impl Message) -> Vec<u8> {
    let mut buffer = BytesMut::new();
    codec::encode_message(message, &mut buffer).unwrap();
    buffer.to_vec()
}

#[tokio::test]
async fn a_request_goes_out_together_with_the_handshake_before_the_peer_has_said_anything() {
    let (one, mut other) = duplex(1 << 10);
    let mut client = over(one);
    client.send_message(&progress(5)).await.unwrap();

    let mut expected = handshake::encode(OURS).to_vec();
    expected.extend(encoded(&progress(5)));
    let mut first_read = vec![0; 1 << 10];
    let count = other.read(&mut first_read).await.unwrap();
    assert_eq!(first_read[..count], expected);
    assert!(!client.is_reusable(), "the peer has not proved what it is");
}

#[tokio::test]
async fn messages_headers_and_bodies_arrive_whole_through_any_pipe() {
    for room in [1, 7, 100, 1 << 20] {
        let (mut client, mut server) = pair(room);
        let body: Vec<u8> = (0..=250).cycle().take(70_000).collect();
        let header = FrameHeader::data(1 << 16, body.len(), true);
        let values = [9; 96];

        let send = async {
            client.writer.queue_message(&progress(1)).unwrap();
            let parts: [&[u8]; 5] = [&header.encode(), &values, &[], &body[..100], &body[100..]];
            client.write_all_vectored(&parts).await.unwrap();
            client.send_message(&progress(u64::MAX)).await.unwrap();
        };
        let receive = async {
            assert_eq!(server.recv_message::<WriteProgress>().await.unwrap(), progress(1));
            assert_eq!(server.recv_frame_header().await.unwrap(), header);
            let mut buffer = BytesMut::from(&b"kept"[..]);
            server.read_exact_into(&mut buffer, 96).await.unwrap();
            server.read_exact_into(&mut buffer, 0).await.unwrap();
            server.read_exact_into(&mut buffer, 60_000).await.unwrap();
            let mut rest = vec![0; 10_000];
            server.reader.read_exact(&mut rest).await.unwrap();
            assert_eq!(buffer[..4], *b"kept");
            assert_eq!(buffer[4..100], values);
            assert!(buffer[100..] == body[..60_000] && rest == body[60_000..], "room {room}");
            assert_eq!(server.recv_message::<WriteProgress>().await.unwrap(), progress(u64::MAX));
        };
        tokio::join!(send, receive);
        assert!(server.reader.is_between_exchanges());
    }
}

#[tokio::test]
async fn more_slices_than_one_call_takes_arrive_in_order() {
    let (mut client, mut server) = pair(64);
    let parts: Vec<[u8; 3]> = (0..100).map(|part| [part; 3]).collect();
    let slices: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
    let mut buffer = BytesMut::new();
    let (sent, received) = tokio::join!(client.write_all_vectored(&slices), async {
        server.reader.recv_handshake().await?;
        server.read_exact_into(&mut buffer, 300).await
    });
    sent.unwrap();
    received.unwrap();
    assert_eq!(buffer[..], parts.concat());
}

#[tokio::test]
async fn a_body_is_read_into_the_room_the_caller_has() {
    let (mut client, mut peer) = with_raw_peer().await;
    let mut buffer = BytesMut::with_capacity(1 << 16);
    let room = buffer.as_ptr();
    for fill in [1_u8, 2] {
        peer.write_all(&vec![fill; 1 << 16]).await.unwrap();
        client.reader.recv_handshake().await.unwrap();
        client.read_exact_into(&mut buffer, 1 << 16).await.unwrap();
        assert!(buffer.iter().all(|byte| *byte == fill));
        assert_eq!(buffer.as_ptr(), room, "no other memory was taken");
        buffer.clear();
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_for_a_message_or_header_loses_nothing() {
    let (mut client, mut peer) = with_raw_peer().await;
    let message = BlockFailure { message: "x".repeat(300), ..BlockFailure::default() };
    let bytes = encoded(&message);
    for part in bytes.chunks(100) {
        let cancelled =
            tokio::time::timeout(Duration::from_millis(1), client.recv_message::<BlockFailure>());
        assert!(cancelled.await.is_err());
        peer.write_all(part).await.unwrap();
    }
    assert_eq!(client.recv_message::<BlockFailure>().await.unwrap(), message);

    let header = FrameHeader::plain(FrameKind::Proof, 64).encode();
    peer.write_all(&header[..HEADER_BYTES - 1]).await.unwrap();
    let cancelled = tokio::time::timeout(Duration::from_millis(1), client.recv_frame_header());
    assert!(cancelled.await.is_err());
    peer.write_all(&header[HEADER_BYTES - 1..]).await.unwrap();
    assert_eq!(client.recv_frame_header().await.unwrap().kind, FrameKind::Proof);
    assert!(!client.is_reusable(), "its handshake was never sent");
    client.writer.flush().await.unwrap();
    assert!(client.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_body_or_write_makes_the_connection_unusable() {
    let (mut client, mut peer) = with_raw_peer().await;
    client.send_message(&progress(1)).await.unwrap();
    peer.write_all(&encoded(&progress(1))).await.unwrap();
    client.recv_message::<WriteProgress>().await.unwrap();
    assert!(client.is_reusable());
    peer.write_all(b"half").await.unwrap();
    let mut buffer = BytesMut::new();
    let moment = Duration::from_millis(1);
    let cancelled = tokio::time::timeout(moment, client.read_exact_into(&mut buffer, 8));
    assert!(cancelled.await.is_err());
    assert!(!client.is_reusable());
    let refusal = client.recv_message::<WriteProgress>().await.unwrap_err();
    assert!(matches!(refusal, StreamError::Unusable { .. }), "{refusal:?}");

    let (mut client, _peer) = pair(10);
    let message = progress(1);
    let cancelled = tokio::time::timeout(moment, client.send_message(&message));
    assert!(cancelled.await.is_err());
    let refusal = client.send_message(&progress(1)).await.unwrap_err();
    assert!(matches!(refusal, StreamError::Unusable { .. }), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_at_its_deadline_and_each_byte_starts_it_anew() {
    let (mut client, mut peer) = with_raw_peer().await;
    let started = tokio::time::Instant::now();
    let bytes = encoded(&progress(1));
    let feed = async {
        for byte in &bytes {
            tokio::time::sleep(DEADLINES.progress.mul_f32(0.99)).await;
            peer.write_all(&[*byte]).await.unwrap();
        }
    };
    let (received, ()) = tokio::join!(client.recv_message::<WriteProgress>(), feed);
    assert_eq!(received.unwrap(), progress(1));

    let waited_from = tokio::time::Instant::now();
    assert!(waited_from - started > DEADLINES.progress);
    let silence = client.recv_message::<WriteProgress>().await.unwrap_err();
    // The timer has a resolution of a millisecond.
    let waited = waited_from.elapsed();
    assert!(waited >= DEADLINES.progress && waited < DEADLINES.progress + Duration::from_secs(1));
    let said = "node:1 did not answer within 30s (waiting for a message)";
    assert_eq!(silence.to_string(), said);
    assert!(!client.is_reusable());
}

#[tokio::test(start_paused = true)]
async fn a_shorter_deadline_holds_though_the_timer_was_set_for_a_longer_one() {
    let (mut client, mut peer) = with_raw_peer().await;
    let wait = tokio::time::timeout(Duration::from_secs(1), client.recv_request::<WriteProgress>());
    assert!(wait.await.is_err(), "the idle deadline is longer");
    peer.write_all(&[4]).await.unwrap(); // Part of a prefix.
    let started = tokio::time::Instant::now();
    client.reader.set_progress_deadline(Duration::from_secs(5));
    let silence = client.recv_request::<WriteProgress>().await.unwrap_err();
    assert!(matches!(silence, StreamError::TimedOut { .. }), "{silence:?}");
    assert!(started.elapsed() < Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_noticed() {
    let (mut client, _peer) = pair(10);
    let silence = client.send_message(&progress(1)).await.unwrap_err();
    assert_eq!(silence.to_string(), "node:1 did not answer within 30s (sending)");
}

#[tokio::test]
async fn the_end_between_requests_is_no_error_and_within_one_it_is() {
    let (mut server, mut peer) = with_raw_peer().await;
    peer.write_all(&encoded(&progress(3))).await.unwrap();
    drop(peer);
    assert_eq!(server.recv_request::<WriteProgress>().await.unwrap(), Some(progress(3)));
    assert_eq!(server.recv_request::<WriteProgress>().await.unwrap(), None);

    let (mut server, mut peer) = with_raw_peer().await;
    peer.write_all(&encoded(&progress(3))[..5]).await.unwrap();
    drop(peer);
    let cut = server.recv_request::<WriteProgress>().await.unwrap_err();
    assert_eq!(cut.to_string(), "node:1 closed the connection (waiting for a message)");

    let (mut server, mut peer) = with_raw_peer().await;
    peer.write_all(b"half").await.unwrap();
    drop(peer);
    server.reader.recv_handshake().await.unwrap();
    let cut = server.read_exact_into(&mut BytesMut::new(), 8).await.unwrap_err();
    assert_eq!(cut.to_string(), "node:1 closed the connection (receiving a body)");
}

#[tokio::test]
async fn halves_work_apart_and_are_joined_again() {
    let (client, server) = pair(16);
    let (mut reader, mut writer) = client.split();
    let (mut from_client, mut to_client) = server.split();
    let there = async {
        for number in 0..50 {
            writer.send_message(&progress(number)).await.unwrap();
        }
    };
    let back = async {
        for number in 0..50 {
            let message: WriteProgress = from_client.recv_message().await.unwrap();
            assert_eq!(message, progress(number));
            to_client.send_message(&message).await.unwrap();
        }
    };
    let home = async {
        for number in 0..50 {
            assert_eq!(reader.recv_message::<WriteProgress>().await.unwrap(), progress(number));
        }
    };
    tokio::join!(there, back, home);
    assert!(BlockConnection::join(reader, writer).is_reusable());
}

#[tokio::test]
async fn lingering_throws_away_what_the_peer_still_sends_and_the_last_words_arrive() {
    let (mut server, mut peer) = with_raw_peer().await;
    server.reader.recv_handshake().await.unwrap();
    server.writer.queue_message(&progress(9)).unwrap();
    let flood = Bytes::from(vec![0; 3 << 20]);
    let talk = async {
        peer.write_all(&flood).await.unwrap();
        peer.shutdown().await.unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let (heard, ()) = tokio::join!(talk, server.linger());
    assert_eq!(heard[handshake::HANDSHAKE_BYTES..], encoded(&progress(9)));
}

#[tokio::test]
async fn a_stale_connection_is_told_from_a_quiet_one() {
    let (mut client, peer) = pair(64);
    assert!(!client.is_stale());
    drop(peer);
    assert!(client.is_stale());
}

/// Neither connects nor refuses.
struct BlackHole;

impl Net for BlackHole {
    fn connect<'a>(
        &'a self,
        _address: &'a str,
    ) -> crate::net::BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(std::future::pending())
    }

    fn bind<'a>(
        &'a self,
        _address: &'a str,
    ) -> crate::net::BoxFuture<'a, io::Result<Box<dyn crate::net::Listener>>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn connecting_has_a_deadline_and_a_refusal_names_the_peer() {
    let connecting = BlockConnection::connect(&BlackHole, "hole:1", OURS, DEADLINES);
    let silence = connecting.await.unwrap_err();
    assert_eq!(silence.to_string(), "hole:1 did not answer within 3s (connecting)");
    assert_eq!(silence.peer(), "hole:1");
}

#[tokio::test]
async fn an_exchange_may_run_in_a_task_of_its_own() {
    let (client, mut server) = pair(64);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut reader, mut writer) = client.split();
        let (values, body) = (vec![1; 32], vec![2; 100]);
        writer.write_all_vectored(&[&values, &body]).await?;
        writer.send_message(&progress(1)).await?;
        let mut buffer = BytesMut::new();
        reader.recv_message::<WriteProgress>().await?;
        reader.read_exact_into(&mut buffer, 3).await?;
        reader.recv_frame_header().await
    });
    server.send_message(&progress(2)).await.unwrap();
    let header = FrameHeader::plain(FrameKind::Proof, 0);
    server.write_all_vectored(&[b"abc", &header.encode()]).await.unwrap();
    let mut buffer = BytesMut::new();
    server.reader.recv_handshake().await.unwrap();
    server.read_exact_into(&mut buffer, 132).await.unwrap();
    assert_eq!(server.recv_message::<WriteProgress>().await.unwrap(), progress(1));
    assert_eq!(tasks.join_next().await.unwrap().unwrap().unwrap(), header);
}
