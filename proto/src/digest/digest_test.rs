//! The composed digest against `blake3::hash` of the same bytes, which is what `b3sum` prints.

use proptest::prelude::*;

use super::block::{BlockDigest, BlockTree};
use super::file::file_digest;
use super::group::{group_chaining_value, group_value};
use super::{ChainingValue, FileDigest, bytes_from_hex};
use crate::limits::GROUP_BYTES;

const KIB: usize = 1024;
const BLOCK_SIZES: [usize; 3] = [64 * KIB, 128 * KIB, 1024 * KIB];

/// The same unrepeating bytes for the same length and seed.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Digest of one block, pushed group by group as writers and datanodes do.
fn block_digest(file_offset: usize, block: &[u8]) -> BlockDigest {
    let mut tree = BlockTree::new(file_offset as u64);
    for group in block.chunks(GROUP_BYTES as usize) {
        let pushed = tree.push_group(group);
        assert_eq!(tree.groups().last(), Some(&pushed));
    }
    assert_eq!(tree.length(), block.len() as u64);
    tree.digest().unwrap()
}

/// Digest of a file as the namenode computes it: from the values of its blocks alone.
fn composed(bytes: &[u8], block_bytes: usize) -> FileDigest {
    let blocks: Vec<BlockDigest> = bytes
        .chunks(block_bytes)
        .enumerate()
        .map(|(index, block)| block_digest(index * block_bytes, block))
        .collect();
    for (index, block) in blocks.iter().enumerate() {
        assert_eq!(block.root_value.is_some(), index == 0, "only block 0 has a root value");
    }
    let rest: Vec<ChainingValue> =
        blocks.iter().skip(1).map(|block| block.chaining_value).collect();
    file_digest(blocks.first(), &rest).unwrap()
}

fn public(bytes: &[u8]) -> FileDigest {
    FileDigest(*blake3::hash(bytes).as_bytes())
}

#[test]
fn the_composed_digest_is_the_public_one_around_every_boundary() {
    for block in BLOCK_SIZES {
        let mut lengths = vec![0, 1, 1023, 1024, 1025, 2048, 2049];
        for base in [64 * KIB, 128 * KIB, block, 2 * block, 3 * block, 4 * block, 5 * block] {
            lengths.extend([base - 1025, base - 1, base, base + 1, base + 1024, base + 77_777]);
        }
        for length in lengths {
            let bytes = bytes(length, 0);
            assert_eq!(
                composed(&bytes, block),
                public(&bytes),
                "{length} bytes, blocks of {block}"
            );
        }
    }
}

#[test]
fn blocks_of_every_count_up_to_33_compose() {
    for count in 1..=33_usize {
        for odd in [0, 1, 70_000] {
            let length = count * 128 * KIB - odd;
            let bytes = bytes(length, 1);
            assert_eq!(composed(&bytes, 128 * KIB), public(&bytes), "{length} bytes");
        }
    }
}

#[test]
fn an_empty_file_has_the_public_digest_and_an_empty_block_none() {
    assert_eq!(file_digest(None, &[]), Some(public(b"")));
    assert_eq!(FileDigest::empty(), public(b""));
    assert_eq!(BlockTree::new(0).digest(), None);
}

#[test]
fn a_file_whose_first_block_lacks_its_root_value_has_no_digest_until_a_second_block_comes() {
    let first = BlockDigest { root_value: None, ..block_digest(0, &bytes(64 * KIB, 2)) };
    assert_eq!(file_digest(Some(&first), &[]), None);
    let second = block_digest(64 * KIB, b"tail").chaining_value;
    assert!(file_digest(Some(&first), &[second]).is_some());
}

#[test]
fn the_same_bytes_elsewhere_in_the_file_have_another_value() {
    let bytes = bytes(64 * KIB, 3);
    let here = group_chaining_value(0, &bytes);
    assert_eq!(here, group_value(0, &bytes).chaining_value);
    assert_ne!(here, group_chaining_value(GROUP_BYTES, &bytes));
    assert_eq!(group_value(GROUP_BYTES, &bytes).root_value, None);
    assert_eq!(group_value(0, &bytes).root_value, Some(public(&bytes)));
}

#[test]
fn swapped_blocks_give_another_digest() {
    let first = block_digest(0, &bytes(64 * KIB, 4));
    let second = block_digest(64 * KIB, &bytes(64 * KIB, 5)).chaining_value;
    let third = block_digest(128 * KIB, &bytes(64 * KIB, 6)).chaining_value;
    assert_ne!(
        file_digest(Some(&first), &[second, third]),
        file_digest(Some(&first), &[third, second])
    );
}

#[test]
#[should_panic(expected = "only the last group may be short")]
fn nothing_follows_a_short_group() {
    let mut tree = BlockTree::new(0);
    tree.push_group(b"short");
    tree.push_group(b"more");
}

#[test]
fn digests_read_the_hexadecimal_digits_they_print_and_nothing_else() {
    let digest = public(b"doldam");
    let text = digest.to_string();
    assert_eq!(FileDigest::from_hex(&text), Some(digest));
    assert_eq!(FileDigest::from_hex(&text.to_uppercase()), Some(digest));
    assert_eq!(FileDigest::from_hex(&text[1..]), None);
    assert_eq!(FileDigest::from_hex(&format!("{text}0")), None);
    assert_eq!(FileDigest::from_hex(&text.replace(&text[..1], "g")), None);
    assert_eq!(FileDigest::from_hex(&"ü".repeat(32)), None);
    assert_eq!(bytes_from_hex::<2>("+1+1"), None);
    assert_eq!(FileDigest::from_slice(&digest.to_bytes()), Some(digest));
    assert_eq!(FileDigest::from_slice(&digest.0[1..]), None);
    assert_eq!(ChainingValue::from_slice(&[0; 33]), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_length_and_block_size_compose(
        length in 0..3_000_000_usize,
        block in prop::sample::select(&BLOCK_SIZES),
        seed in any::<u64>(),
    ) {
        let bytes = bytes(length, seed);
        prop_assert_eq!(composed(&bytes, block), public(&bytes));
    }
}

#[test]
fn a_block_gone_on_with_at_any_group_ends_with_the_same_value() {
    let group = GROUP_BYTES as usize;
    for length in [1, group, group + 1, 5 * group, 5 * group + 7] {
        let whole = bytes(length, 3);
        for file_offset in [0, 3 << 30] {
            let expected = block_digest(file_offset, &whole);
            let mut tree = BlockTree::new(file_offset as u64);
            whole.chunks(group).for_each(|bytes| _ = tree.push_group(bytes));
            for kept in 0..=length / group {
                let mut cut = tree.clone();
                cut.keep_groups(kept);
                let known = cut.groups().to_vec();
                let known =
                    BlockTree::from_full_groups(file_offset as u64, known, cut.first_root());
                for mut tree in [cut, known] {
                    assert_eq!(tree.length(), (kept * group) as u64);
                    whole[kept * group..]
                        .chunks(group)
                        .for_each(|bytes| _ = tree.push_group(bytes));
                    assert_eq!(tree.digest(), Some(expected), "{length} from {kept}");
                }
            }
        }
    }
}
