//! Every parser over its committed corpus and over random changes of it: what the fuzz targets look for longer.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

use doldam_integration_tests::parser::{PARSERS, Parser};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

fn corpus_folder(parser: &Parser) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(parser.name)
}

/// The committed inputs of a parser, in the order of their names.
fn corpus(parser: &Parser) -> Vec<Vec<u8>> {
    let folder = corpus_folder(parser);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// One change to an input.
#[derive(Debug, Clone)]
enum Change {
    FlipBit(Index),
    SetByte(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
    WriteNumber(Index, u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index| index.index(bytes.len().max(1));
        match self {
            Self::FlipBit(_) | Self::SetByte(..) if bytes.is_empty() => {}
            Self::FlipBit(index) => {
                let bit = index.index(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            Self::SetByte(index, value) => {
                let at = place(index);
                bytes[at] = *value;
            }
            Self::Cut(index) => bytes.truncate(place(index)),
            Self::Insert(index, more) => {
                let at = place(index).min(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Repeat(first, second) => {
                let (first, second) = (place(first), place(second));
                let range = first.min(second)..first.max(second);
                let again = bytes.get(range).unwrap_or_default().to_vec();
                bytes.extend(again);
            }
            Self::WriteNumber(index, number) => {
                let at = place(index);
                let number = number.to_le_bytes();
                let room = bytes.len().saturating_sub(at).min(number.len());
                bytes[at..at + room].copy_from_slice(&number[..room]);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(u64::from(u32::MAX)),
        Just(1 << 63),
        (0..64_u32).prop_map(|bit| 1 << bit),
        any::<u64>(),
    ];
    prop_oneof![
        4 => any::<Index>().prop_map(Change::FlipBit),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::SetByte(at, byte)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..40))
            .prop_map(|(at, more)| Change::Insert(at, more)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Repeat(from, to)),
        2 => (any::<Index>(), number).prop_map(|(at, number)| Change::WriteNumber(at, number)),
    ]
}

#[test]
fn every_parser_has_a_corpus_at_least_as_large_as_its_seeds() {
    for parser in PARSERS {
        let (inputs, seeds) = (corpus(parser).len(), (parser.seeds)().len());
        assert!(inputs >= seeds && seeds > 0, "{}: run `write_the_seeds` below", parser.name);
    }
}

#[test]
fn the_corpus_passes_every_parser() {
    for parser in PARSERS {
        // Input for one parser is food for every other.
        for input in PARSERS.iter().flat_map(|other| [corpus(other), (other.seeds)()].concat()) {
            (parser.feed)(&input);
        }
    }
}

/// All places of a small input; of a larger one so many of them, evenly spread and not all in the same bit.
fn places(count: usize, most: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(count.div_ceil(most).max(1) | 1)
}

#[test]
fn every_cut_and_every_flipped_bit_of_the_corpus_passes() {
    for parser in PARSERS {
        for input in corpus(parser) {
            for length in places(input.len(), 256) {
                (parser.feed)(&input[..length]);
            }
            let mut flipped = input.clone();
            for bit in places(input.len() * 8, 2048) {
                flipped[bit / 8] ^= 1 << (bit % 8);
                (parser.feed)(&flipped);
                flipped[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn random_changes_of_the_corpus_pass() {
    for parser in PARSERS {
        let corpus = corpus(parser);
        let inputs = (prop::sample::select(corpus), prop::collection::vec(change(), 1..8))
            .prop_map(|(mut input, changes)| {
                for change in &changes {
                    change.apply(&mut input);
                }
                input
            });
        let mut runner = TestRunner::new(ProptestConfig::with_cases(1000));
        let outcome = runner.run(&inputs, |input| {
            (parser.feed)(&input);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{}: {error}", parser.name);
        }
    }
}

/// Writes the seeds that the corpus does not have, after a parser or a seed was added:
/// `cargo test -p doldam-integration-tests --test parsers -- --ignored`.
#[test]
#[ignore = "writes to the source tree"]
fn write_the_seeds() {
    for parser in PARSERS {
        let folder = corpus_folder(parser);
        fs::create_dir_all(&folder).unwrap();
        for (index, seed) in (parser.seeds)().iter().enumerate() {
            let file = folder.join(format!("seed_{index:02}"));
            if !file.exists() {
                fs::write(file, seed).unwrap();
            }
        }
    }
}
