//! Small disks, disks that fill up, disks that lose power. Only inside a [`sandbox`](super::sandbox): its mounts end
//! with it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::sandbox::command;

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: the file system forgets at once, without writing anything,
/// all that is not on its disk, its own log included, and refuses everything from then on. What testers of file systems
/// use for a power cut.
const POWER_CUT: &str = "open(my $dir, '<', $ARGV[0]) or die \"$ARGV[0]: $!\"; \
                         my $flags = pack('I', 2); \
                         ioctl($dir, 0x8004587d, $flags) or die \"shutdown: $!\"";

/// A disk with a file system, mounted.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    /// What is mounted, if it outlives being unmounted.
    image: Option<PathBuf>,
}

impl Disk {
    /// A disk of `bytes` at `path`, in memory.
    pub fn in_memory(path: PathBuf, bytes: u64) -> Self {
        fs::create_dir_all(&path).unwrap();
        let size = format!("size={bytes},mode=755");
        command("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", text(&path)]);
        Self { path, image: None }
    }

    /// A disk of `bytes` at `path`, with ext4 in the file `image`; mounted with `options`.
    pub fn ext4(path: PathBuf, image: PathBuf, bytes: u64, options: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        File::create(&image).unwrap().set_len(bytes).unwrap();
        // Nothing is kept back for root, whom the servers run as.
        command("mkfs.ext4", &["-q", "-F", "-m", "0", text(&image)]);
        let disk = Self { path, image: Some(image) };
        disk.mount(options);
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Mounts it again after a power cut; the file system recovers as after any.
    pub fn power_on(&self, options: &str) {
        command("umount", &[text(&self.path)]);
        self.mount(options);
    }

    fn mount(&self, options: &str) {
        let image = self.image.as_deref().expect("a disk in memory does not come back");
        let options = format!("loop,{options}");
        command("mount", &["-t", "ext4", "-o", &options, text(image), text(&self.path)]);
    }

    /// The power goes: all that was not synced is gone, everything fails until [`power_on`](Self::power_on).
    pub fn cut_power(&self) {
        command("perl", &["-e", POWER_CUT, text(&self.path)]);
    }

    /// No more writes, as when the file system has found an error; it must be mounted with `errors=remount-ro`.
    pub fn make_read_only(&self) {
        // A plain change to read-only is refused while files are open for writing.
        command("mount", &["-o", "remount,abort", text(&self.path)]);
    }

    /// It is pulled out: whoever has a file open keeps that one, nobody finds another.
    pub fn pull_out(&self) {
        command("umount", &["--lazy", text(&self.path)]);
    }

    /// Somebody else fills it to the last byte; free again when that is dropped.
    pub fn fill(&self) -> Filling {
        let path = self.path.join("filling");
        let mut file = File::create(&path).unwrap();
        for bytes in [1 << 20, 1 << 16, 1 << 12, 1 << 9] {
            let piece = vec![7; bytes];
            loop {
                match file.write(&piece) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => panic!("{}: {error}", path.display()),
                }
            }
        }
        // Else it might be found out only later that some of it fits.
        file.sync_all().unwrap();
        Filling { path }
    }
}

/// A file that takes all the room of a [`Disk`].
#[derive(Debug)]
pub struct Filling {
    path: PathBuf,
}

impl Drop for Filling {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
