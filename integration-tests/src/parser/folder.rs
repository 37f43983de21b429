//! Small files of the servers' folders, and the names of files there.

use std::fs;

use doldam_datanode::inspect;
use doldam_namenode::driver::identity;
use doldam_proto::id::{ClusterId, NodeUuid};
use doldam_runtime::disk::RealDisk;

use super::memory_folder::in_empty_folder;

/// Of the datanode's files: bytes before the checksum.
const CHECKED_BYTES: usize = 40;
const VERSION_FILE: u8 = 0;
const SCRUB_FILE: u8 = 1;
const NAMENODE_VERSION_FILE: u8 = 2;
const REPLICA_NAME: u8 = 3;
/// Added to the kind: the checksum is made right, as random changes would never get behind it.
const MEND: u8 = 0x80;

/// A file or a name, its kind chosen by the first byte.
pub fn folder_file(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut file = bytes.to_vec();
    if kind & MEND != 0 && file.len() >= CHECKED_BYTES + 8 {
        let hash = blake3::hash(&file[..CHECKED_BYTES]);
        file[CHECKED_BYTES..CHECKED_BYTES + 8].copy_from_slice(&hash.as_bytes()[..8]);
    }
    match kind & !MEND {
        VERSION_FILE => {
            if let Ok((node, cluster)) = inspect::version_file(&file) {
                assert_eq!(file.len(), CHECKED_BYTES + 8);
                assert_eq!(NodeUuid::from_slice(&file[8..24]), Some(node));
                let named = ClusterId::from_slice(&file[24..40]);
                assert!(cluster.is_none() || cluster == named);
            }
        }
        SCRUB_FILE => {
            let accepted = inspect::scrub_file(&file);
            assert!(!accepted || file.len() == CHECKED_BYTES + 8);
        }
        NAMENODE_VERSION_FILE => namenode_version(&file),
        REPLICA_NAME => {
            let Ok(name) = std::str::from_utf8(&file) else { return };
            if let Some((block, generation, length)) = inspect::replica_file(name) {
                let length = length.map(|length| format!("_{length}")).unwrap_or_default();
                let stem = format!("{:016x}_{}{length}.", block.0, generation.0);
                assert!(name.starts_with(&stem), "one spelling for each replica");
            }
        }
        _ => {}
    }
}

/// A folder that has this file keeps it, or is refused.
fn namenode_version(file: &[u8]) {
    in_empty_folder(|folder| {
        let path = folder.join(identity::FILE_NAME);
        fs::write(&path, file).unwrap();
        let chosen = || panic!("the folder has an identity");
        if let Ok(cluster) = identity::open(&RealDisk, folder, &[], chosen) {
            let text = std::str::from_utf8(file).unwrap().to_lowercase();
            assert!(text.contains(&cluster.to_string()), "the id is the one that is written there");
        }
    });
}

pub(super) fn folder_file_seeds() -> Vec<Vec<u8>> {
    let mut version = b"DLDV\x01\0\x01\0".to_vec();
    version.extend([7; 16]);
    version.extend([9; 16]);
    let mut alone = version.clone();
    alone[6] = 0;
    let mut scrub = b"DLDC\x01\0\x03\0".to_vec();
    for number in [5_u64, 1, 3, 1_700_000_000_000] {
        scrub.extend(number.to_le_bytes());
    }
    let with_checksum = |kind: u8, file: Vec<u8>| [&[kind | MEND][..], &file, &[0; 8]].concat();
    let text = |kind: u8, text: &str| [&[kind][..], text.as_bytes()].concat();
    let namenode = "doldam namenode\nformat 1\ncluster 0123456789abcdef0123456789abcdef\n";
    vec![
        with_checksum(VERSION_FILE, version),
        with_checksum(VERSION_FILE, alone),
        with_checksum(SCRUB_FILE, scrub),
        text(NAMENODE_VERSION_FILE, namenode),
        text(NAMENODE_VERSION_FILE, &namenode.replace("format 1", "format 2")),
        text(REPLICA_NAME, "00000000000000ff_3_65536.blk"),
        text(REPLICA_NAME, "00000000000000ff_3.blk"),
    ]
}
