//! Bytes for tests: the same for the same seed, different at every place.

use std::fs;
use std::path::Path;

/// `length` bytes that belong to `seed`.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes them to `path` and returns what `b3sum` prints for them.
pub fn write_file(path: &Path, seed: u64, length: usize) -> String {
    let bytes = bytes(seed, length);
    fs::write(path, &bytes).unwrap();
    blake3::hash(&bytes).to_string()
}

/// What `b3sum` prints for a file.
pub fn b3sum(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(path).unwrap()).unwrap();
    hasher.finalize().to_string()
}
