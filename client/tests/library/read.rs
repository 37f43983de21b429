//! Reading when all goes well: streams, seeks, ranges.

use std::io::SeekFrom;

use doldam_client::FsError;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::fakes::{BLOCK, FakeCluster, bytes};

const PATH: &str = "/d/f";

async fn cluster_with(content: &[u8], block_bytes: u64) -> FakeCluster {
    let cluster = FakeCluster::start(2).await;
    cluster.add_file(PATH, content, block_bytes, &[1, 2]);
    cluster
}

#[tokio::test]
async fn a_file_is_read_to_its_end_and_every_byte_was_verified() {
    for length in [0, 1, 65_536, BLOCK as usize, BLOCK as usize + 1, 700_000] {
        let content = bytes(length);
        let cluster = cluster_with(&content, BLOCK).await;
        let client = cluster.client().await;
        let mut file = client.open(PATH).await.unwrap();
        let mut found = Vec::new();
        file.read_to_end(&mut found).await.unwrap();
        assert_eq!(found, content, "{length}");
        let verification = file.verification();
        assert_eq!(verification.bytes_verified, length as u64);
        assert_eq!(verification.blocks, (length as u64).div_ceil(BLOCK));
        assert_eq!((verification.failovers, verification.bad_replicas.len()), (0, 0));
        assert_eq!(cluster.namenode.call_names(), ["locate"]);
    }
}

#[tokio::test]
async fn large_blocks_are_read_in_few_requests_over_one_connection() {
    let content = bytes(40 << 20);
    let cluster = cluster_with(&content, 32 << 20).await;
    let client = cluster.client().await;
    let mut file = client.open(PATH).await.unwrap();
    let mut at = 0;
    while let Some(chunk) = file.read_chunk().await.unwrap() {
        assert_eq!(chunk, content[at..at + chunk.len()]);
        at += chunk.len();
    }
    assert_eq!(at, content.len());
    assert_eq!(cluster.datanode(1).requests(), (0, 3));
    assert_eq!(cluster.datanode(1).connections(), 1);
    assert_eq!(file.read_chunk().await.unwrap(), None);
}

#[tokio::test]
async fn a_seek_lands_where_it_should_within_and_beyond_what_was_read_ahead() {
    let content = bytes(3 * BLOCK as usize + 5_000);
    let cluster = cluster_with(&content, BLOCK).await;
    let client = cluster.client().await;
    let mut file = client.open(PATH).await.unwrap();
    let mut found = [0; 100];
    let block = BLOCK as usize;
    for position in [0, 10, 150, 100, block - 50, 3 * block, 65_530, 0, content.len() - 100] {
        let reached = file.seek(SeekFrom::Start(position as u64)).await.unwrap();
        assert_eq!(reached, position as u64);
        file.read_exact(&mut found).await.unwrap();
        assert_eq!(found, content[position..position + 100], "{position}");
    }
    assert_eq!(file.seek(SeekFrom::Current(-200)).await.unwrap(), content.len() as u64 - 200);
    file.read_exact(&mut found).await.unwrap();
    assert_eq!(found, content[content.len() - 200..content.len() - 100]);
    assert_eq!(file.seek(SeekFrom::End(-7)).await.unwrap(), content.len() as u64 - 7);
    let mut rest = Vec::new();
    file.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, content[content.len() - 7..]);
    file.seek(SeekFrom::End(1000)).await.unwrap();
    assert_eq!(file.read(&mut found).await.unwrap(), 0);
    assert!(file.seek(SeekFrom::Current(-1_000_000_000)).await.is_err());
    file.rewind().await.unwrap();
    file.read_exact(&mut found).await.unwrap();
    assert_eq!(found, content[..100]);
}

#[tokio::test]
async fn ranges_are_cut_at_the_end_and_asked_for_with_little_more_than_they_need() {
    let content = bytes(2 * BLOCK as usize + 10);
    let cluster = cluster_with(&content, BLOCK).await;
    let client = cluster.client().await;
    let file = client.open(PATH).await.unwrap();
    let length = content.len();
    for (offset, wanted) in
        [(0, 1), (5, 100), (65_530, 20), (BLOCK as usize - 5, 10), (0, length), (length - 1, 99)]
    {
        let found = file.read_at(offset as u64, wanted).await.unwrap();
        assert_eq!(found, content[offset..length.min(offset + wanted)], "{offset}");
    }
    assert_eq!(file.read_at(length as u64, 10).await.unwrap().len(), 0);
    assert_eq!(file.read_at(u64::MAX, usize::MAX).await.unwrap().len(), 0);
    let before = file.verification().bytes_verified;
    assert_eq!(file.read_at(100, 4096).await.unwrap(), content[100..4196]);
    assert_eq!(file.verification().bytes_verified - before, 65_536);
}

#[tokio::test]
async fn many_ranges_come_in_their_order_and_close_ones_in_one_request() {
    let content = bytes(8 * BLOCK as usize);
    let cluster = cluster_with(&content, BLOCK).await;
    let client = cluster.client().await;
    let file = client.open(PATH).await.unwrap();
    let at = |block: u64, offset: u64| block * BLOCK + offset;
    let ranges = [
        at(6, 0)..at(6, 10),
        at(0, 10)..at(0, 20),
        at(0, 0)..at(0, 15),
        at(3, 100)..at(4, 100),
        5..5,
        at(7, 0)..u64::MAX,
    ];
    let found = file.read_ranges(&ranges).await.unwrap();
    for (range, found) in ranges.iter().zip(found) {
        let end = range.end.min(content.len() as u64);
        assert_eq!(found, content[range.start as usize..end as usize], "{range:?}");
    }
    // One for the two at the start, one for block 6, two for 3 and 4, one for 7.
    assert_eq!(cluster.datanode(1).requests(), (0, 5));
}

#[tokio::test]
async fn ranges_and_the_stream_do_not_disturb_each_other() {
    let content = bytes(3 * BLOCK as usize);
    let cluster = cluster_with(&content, BLOCK).await;
    let client = cluster.client().await;
    let mut file = client.open(PATH).await.unwrap();
    let mut found = vec![0; 1000];
    file.read_exact(&mut found).await.unwrap();
    let (first, second) = tokio::join!(file.read_at(9, 9), file.read_at(BLOCK * 2, 9));
    assert_eq!(first.unwrap(), content[9..18]);
    assert_eq!(second.unwrap(), content[2 * BLOCK as usize..][..9]);
    file.read_to_end(&mut found).await.unwrap();
    assert_eq!(found, content);
}

#[tokio::test]
async fn a_read_that_is_dropped_half_way_loses_no_byte() {
    let content = bytes(2 * BLOCK as usize);
    let cluster = cluster_with(&content, BLOCK).await;
    let client = cluster.client().await;
    let mut file = client.open(PATH).await.unwrap();
    let mut found = Vec::new();
    loop {
        // Polled once and dropped, over and over: what is under way goes on with the next call.
        let polled = futures::FutureExt::now_or_never(file.read_chunk());
        match polled {
            None => tokio::task::yield_now().await,
            Some(chunk) => match chunk.unwrap() {
                Some(chunk) => found.extend_from_slice(&chunk),
                None => break,
            },
        }
    }
    assert_eq!(found, content);
    assert_eq!(cluster.datanode(1).requests(), (0, 2));
}

#[tokio::test]
async fn what_is_no_file_is_not_opened() {
    let cluster = FakeCluster::start(1).await;
    let client = cluster.client().await;
    let error = client.open("/nothing").await.unwrap_err();
    assert!(error.is_not_found());
    let error = client.open("/").await.unwrap_err();
    assert_eq!(error.refusal(), Some(&FsError::IsADirectory { path: "/".into() }));
}

#[tokio::test]
async fn locations_come_in_pages_and_a_replaced_file_is_noticed() {
    let content = bytes(300 * 65_536);
    let cluster = cluster_with(&content, 65_536).await;
    let client = cluster.client().await;
    let file = client.open(PATH).await.unwrap();
    assert_eq!(file.read_at(0, 10).await.unwrap(), content[..10]);
    assert_eq!(cluster.namenode.call_names(), ["locate"]);
    let last = content.len() - 10;
    assert_eq!(file.read_at(last as u64, 10).await.unwrap(), content[last..]);
    assert_eq!(cluster.namenode.call_names(), ["locate"; 2]);

    let file = client.open(PATH).await.unwrap();
    cluster.add_file(PATH, &content, 65_536, &[1]);
    let error = file.read_at(last as u64, 10).await.unwrap_err();
    assert_eq!(error.refusal(), Some(&FsError::FileChanged { path: PATH.into() }));
}
