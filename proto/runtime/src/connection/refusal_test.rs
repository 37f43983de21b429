//! Tests of what a block stream refuses: foreign peers, garbage, and sizes beyond the limits.

use doldam_proto::frame::header::FrameKind;
use doldam_proto::limits::{FRAME_PAYLOAD_BYTES_MAX, STREAM_MESSAGE_BYTES_MAX};
use doldam_proto::wire::{BlockFailure, WriteProgress};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::tests::{DEADLINES, OURS, over, pair, progress, with_raw_peer};
use super::*;

const THEIRS: ClusterId = ClusterId([8; 16]);

/// What the error and its cause say.
fn told(error: &StreamError) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {cause}")
}

#[tokio::test]
async fn a_peer_that_is_not_ours_is_refused_by_either_side_and_both_know_why() {
    let mut newer = handshake::encode(OURS);
    newer[4] = 3;
    let mut reserved = handshake::encode(OURS);
    reserved[7] = 1;
    let cluster = format!("cluster {THEIRS}, not {OURS}");
    for (greeting, why) in [
        (handshake::encode(THEIRS).to_vec(), cluster.as_str()),
        (newer.to_vec(), "version 3 where 2"),
        (reserved.to_vec(), "reserved"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "does not speak"),
    ] {
        let (one, mut other) = duplex(1 << 20);
        other.write_all(&greeting).await.unwrap();
        let mut client = over(one);
        let refusal = client.recv_message::<WriteProgress>().await.unwrap_err();
        assert!(refusal.is_protocol() && told(&refusal).contains(why), "{}", told(&refusal));
        assert!(!client.is_reusable());

        let (one, mut other) = duplex(1 << 20);
        other.write_all(&greeting).await.unwrap();
        let accepting = BlockConnection::accept(Box::new(one), "node:1", OURS, DEADLINES);
        let answer = async {
            let mut answer = [0; handshake::HANDSHAKE_BYTES];
            other.read_exact(&mut answer).await.unwrap();
            other.shutdown().await.unwrap();
            answer
        };
        let (accepted, answer) = tokio::join!(accepting, answer);
        let refusal = accepted.unwrap_err();
        assert!(told(&refusal).contains(why), "{}", told(&refusal));
        assert_eq!(answer, handshake::encode(OURS), "the peer can tell what is wrong");
    }
}

#[tokio::test]
async fn garbage_is_refused_before_anything_is_allocated_for_it() {
    let (mut client, mut peer) = with_raw_peer().await;
    peer.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    let refusal = client.recv_message::<WriteProgress>().await.unwrap_err();
    assert!(told(&refusal).contains("larger than"), "{}", told(&refusal));

    let (mut client, mut peer) = with_raw_peer().await;
    peer.write_all(&[2, 0, 0, 0, 0xff, 0xff]).await.unwrap();
    let refusal = client.recv_message::<WriteProgress>().await.unwrap_err();
    assert!(told(&refusal).contains("malformed message"), "{}", told(&refusal));

    let (mut client, mut peer) = with_raw_peer().await;
    let header = FrameHeader::plain(FrameKind::Proof, FRAME_PAYLOAD_BYTES_MAX + 1);
    peer.write_all(&header.encode()).await.unwrap();
    let refusal = client.recv_frame_header().await.unwrap_err();
    assert!(told(&refusal).contains("frame payload"), "{}", told(&refusal));
}

#[tokio::test]
async fn a_message_of_the_largest_size_passes_and_a_larger_one_is_not_sent() {
    let (mut client, mut server) = pair(1 << 20);
    let fitting = STREAM_MESSAGE_BYTES_MAX - 4; // Tag and length of the field.
    let message = |bytes| BlockFailure { message: "x".repeat(bytes), ..BlockFailure::default() };
    client.send_message(&message(fitting)).await.unwrap();
    let found: BlockFailure = server.recv_message().await.unwrap();
    assert_eq!(found.message.len(), fitting);

    assert!(client.send_message(&message(fitting + 1)).await.unwrap_err().is_protocol());
    client.send_message(&progress(2)).await.unwrap();
    assert_eq!(server.recv_message::<WriteProgress>().await.unwrap(), progress(2));
}
