//! That faults strike where they are planned, and that a loss of power takes what it may and nothing else.

use super::*;
use crate::disk::conformance::check;
use crate::disk::write_file_durably;

struct Fixture {
    folder: tempfile::TempDir,
    disk: UnreliableDisk,
}

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let disk = UnreliableDisk::over(folder.path()).unwrap();
    Fixture { folder, disk }
}

impl Fixture {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn create(&self, name: &str, content: &[u8]) -> Box<dyn DiskFile> {
        let file = self.disk.open(&self.path(name), OpenMode::CreateNew).unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(name)).ok()
    }
}

#[test]
fn it_conforms_as_long_as_nothing_is_planned() {
    let fixture = fixture();
    check(&fixture.disk, fixture.folder.path());
}

#[test]
fn an_error_strikes_the_operation_it_is_planned_for_and_no_other() {
    let fixture = fixture();
    fixture.disk.plan(Fault::Once { at: 1, errno: EIO });
    let file = fixture.disk.open(&fixture.path("a"), OpenMode::CreateNew).unwrap();
    assert_eq!(file.write_all_at(b"x", 0).unwrap_err().raw_os_error(), Some(EIO));
    file.write_all_at(b"y", 0).unwrap();
    fixture.disk.plan(Fault::From { at: 0, errno: ENOSPC });
    assert_eq!(file.write_all_at(b"z", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(file.sync_data().is_err());
    file.read_exact_at(&mut [0], 0).unwrap();
    fixture.disk.remove_file(&fixture.path("a")).unwrap();
    fixture.disk.heal();
    fixture.create("b", b"again");
}

#[test]
fn a_crash_tears_a_write_and_nothing_changes_after_it() {
    let fixture = fixture();
    let file = fixture.create("a", b"....");
    fixture.disk.plan(Fault::Crash { at: 0 });
    assert!(file.write_all_at(b"abcd", 0).is_err());
    assert!(fixture.disk.has_crashed());
    assert!(file.write_all_at(b"late", 0).is_err());
    assert!(fixture.disk.remove_file(&fixture.path("a")).is_err());
    assert_eq!(fixture.read("a").unwrap(), b"ab..");
}

#[test]
fn a_loss_of_power_takes_what_was_not_synced() {
    for (names, bytes, synced, unsynced) in [
        (Names::Kept, Bytes::Kept, Some(&b"content"[..]), Some(&b"content"[..])),
        (Names::Kept, Bytes::Synced, Some(b"content"), Some(b"")),
        (Names::Kept, Bytes::Zeroed, Some(b"content"), Some(b"\0\0\0\0\0\0\0")),
        (Names::Synced, Bytes::Kept, Some(b"content"), None),
        (Names::Synced, Bytes::Synced, Some(b"content"), None),
    ] {
        let fixture = fixture();
        let file = fixture.create("synced", b"content");
        file.sync_data().unwrap();
        fixture.disk.sync_dir(fixture.folder.path()).unwrap();
        fixture.create("unsynced", b"content");
        fixture.disk.lose_power(names, bytes).unwrap();
        assert_eq!(fixture.read("synced").as_deref(), synced, "{names:?} {bytes:?}");
        assert_eq!(fixture.read("unsynced").as_deref(), unsynced, "{names:?} {bytes:?}");
    }
}

#[test]
fn a_rename_between_folders_of_which_one_is_synced_may_leave_both_names_or_none() {
    for (synced, left) in [("new", ["old", "new"].as_slice()), ("old", &[])] {
        let fixture = fixture();
        for folder in ["old", "new"] {
            fixture.disk.create_dir_all(&fixture.path(folder)).unwrap();
        }
        fixture.disk.sync_dir(fixture.folder.path()).unwrap();
        fixture.create("old/file", b"x").sync_data().unwrap();
        fixture.disk.sync_dir(&fixture.path("old")).unwrap();
        fixture.disk.rename(&fixture.path("old/file"), &fixture.path("new/file")).unwrap();
        fixture.disk.sync_dir(&fixture.path(synced)).unwrap();
        fixture.disk.lose_power(Names::Synced, Bytes::Synced).unwrap();
        let found: Vec<&str> = ["old", "new"]
            .into_iter()
            .filter(|folder| fixture.read(&format!("{folder}/file")).as_deref() == Some(b"x"))
            .collect();
        assert_eq!(found, left, "{synced} was synced");
    }
}

/// The promise of [`write_file_durably`], at each of its steps and for each loss.
#[test]
fn a_file_written_durably_is_old_or_new_after_a_crash_anywhere_and_new_once_it_returned() {
    let count = {
        let fixture = fixture();
        write_file_durably(&fixture.disk, &fixture.path("file"), b"old").unwrap();
        let before = fixture.disk.changes();
        write_file_durably(&fixture.disk, &fixture.path("file"), b"new").unwrap();
        fixture.disk.changes() - before
    };
    assert!(count >= 6, "{count}");
    for at in 0..=count {
        for names in [Names::Kept, Names::Synced] {
            for bytes in [Bytes::Kept, Bytes::Synced, Bytes::Zeroed] {
                let fixture = fixture();
                write_file_durably(&fixture.disk, &fixture.path("file"), b"old").unwrap();
                fixture.disk.plan(Fault::Crash { at });
                let written = write_file_durably(&fixture.disk, &fixture.path("file"), b"new");
                assert_eq!(written.is_ok(), at == count);
                fixture.disk.lose_power(names, bytes).unwrap();
                let found = fixture.read("file").unwrap();
                let is_new = found == b"new";
                assert!(
                    is_new || (found == b"old" && written.is_err()),
                    "{at} {names:?} {bytes:?}"
                );
            }
        }
    }
}
