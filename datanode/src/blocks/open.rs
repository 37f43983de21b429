//! The file of a block that is open: its writer and its readers share it.
//!
//! One writer appends, and only behind what is verified; a byte that is verified is never written again in this file.
//! So whoever read-locks nothing and knows how far the file is verified may read up to there at any time, whatever
//! becomes of the file's name meanwhile.

use std::path::PathBuf;
use std::sync::Arc;

use doldam_proto::digest::block::subtree_value;
use doldam_proto::digest::group::group_chaining_value;
use doldam_proto::digest::{BlockTree, ChainingValue, VALUE_BYTES};
use doldam_proto::id::Generation;
use doldam_proto::limits::GROUP_BYTES;
use doldam_runtime::disk::DiskFile;
use parking_lot::Mutex;

use super::StoreError;
use super::sidecar::groups_of;
use super::store::OpenReplica;
use super::verify::STEP_BYTES;
use super::volume::Volume;
use crate::engine::replica::ReplicaKey;
use crate::engine::startup_plan::Place;

/// The file of an open block.
pub(crate) struct OpenFile {
    /// The data folder it lies in.
    pub(crate) volume: Arc<Volume>,
    /// Where the block starts in its file.
    pub(crate) file_offset: u64,
    /// Under which generation its bytes were written, as far as that is known.
    pub(crate) written_under: Generation,
    data: Box<dyn DiskFile>,
    view: Mutex<View>,
}

/// How far the file is, and under which name.
struct View {
    path: PathBuf,
    length: u64,
    /// The value of each group of the first `length` bytes; unknown of a file that was found at a start, until
    /// somebody needs it.
    groups: Option<Vec<ChainingValue>>,
    /// Whether the name is on stable storage.
    is_name_synced: bool,
    /// Whether it was ever put on stable storage: then a reader or writer may rely on it.
    was_synced: bool,
    /// A sync that failed proves that bytes may be lost; one that succeeds later proves nothing.
    sync_failed: bool,
}

impl OpenFile {
    /// A file at `path` whose first bytes have the values `groups`.
    pub(crate) fn new(
        volume: Arc<Volume>,
        path: PathBuf,
        file_offset: u64,
        written_under: Generation,
        data: Box<dyn DiskFile>,
        (length, groups): (u64, Option<Vec<ChainingValue>>),
    ) -> Self {
        let (is_name_synced, was_synced, sync_failed) = (false, false, false);
        let view = View { path, length, groups, is_name_synced, was_synced, sync_failed };
        Self { volume, file_offset, written_under, data, view: Mutex::new(view) }
    }

    /// Its bytes. Only the writer may write, and behind [`length`](Self::length) only.
    pub(crate) fn data(&self) -> &dyn DiskFile {
        &*self.data
    }

    /// Where it is now.
    pub(crate) fn path(&self) -> PathBuf {
        self.view.lock().path.clone()
    }

    /// It has another name now.
    pub(crate) fn moved(&self, path: PathBuf) {
        let mut view = self.view.lock();
        view.path = path;
        view.is_name_synced = false;
    }

    /// Verified bytes.
    pub(crate) fn length(&self) -> u64 {
        self.view.lock().length
    }

    /// Whether the values of its groups are known without reading it.
    pub(crate) fn is_known(&self) -> bool {
        self.view.lock().groups.is_some()
    }

    /// Whether any of its bytes was put on stable storage while it was open.
    pub(crate) fn was_synced(&self) -> bool {
        self.view.lock().was_synced
    }

    /// The first `tree.length()` bytes are written and verified: of the groups those from `first` on are new.
    pub(crate) fn advance(&self, tree: &BlockTree, first: usize) {
        let mut view = self.view.lock();
        view.length = tree.length();
        let groups = view.groups.get_or_insert_default();
        groups.truncate(first);
        groups.extend_from_slice(&tree.groups()[first.min(tree.groups().len())..]);
    }

    /// Forgets all behind the first `length` bytes, of which these are the values. Nobody may be writing.
    pub(crate) fn cut(&self, length: u64, groups: Vec<ChainingValue>) -> Result<(), StoreError> {
        let path = self.path();
        let cutting = |cause| StoreError::disk(&path, "cutting a block")(cause);
        if self.data.len().map_err(cutting)? > length {
            self.data.set_len(length).map_err(cutting)?;
        }
        let mut view = self.view.lock();
        view.length = length;
        view.groups = Some(groups);
        Ok(())
    }

    /// The values of the groups of the first `length` bytes. Reads the file if they are not known.
    ///
    /// # Errors
    /// If there are fewer bytes, or they cannot be read.
    pub(crate) fn groups(&self, length: u64) -> Result<Vec<ChainingValue>, StoreError> {
        self.learn()?;
        let view = self.view.lock();
        let path = view.path.clone();
        let (Some(groups), true) = (&view.groups, length <= view.length) else {
            return Err(too_short(path));
        };
        let mut found = groups[..groups_of(length)].to_vec();
        let is_same_end = length == view.length || length.is_multiple_of(GROUP_BYTES);
        drop(view);
        if !is_same_end && let Some(last) = found.last_mut() {
            *last = partial_value(&*self.data, &path, self.file_offset, length)?;
        }
        Ok(found)
    }

    /// The tree over the first `length` bytes, to be gone on with; `groups` are its values.
    ///
    /// # Errors
    /// If the last group cannot be read, or is not what its value says.
    pub(crate) fn tree(
        &self,
        key: ReplicaKey,
        length: u64,
        groups: &[ChainingValue],
    ) -> Result<BlockTree, StoreError> {
        tree_of(key, &*self.data, &self.path(), self.file_offset, length, groups)
    }

    /// Puts all that is written on stable storage, but not its name.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// If that fails, or failed before.
    pub(crate) fn sync_data(&self) -> Result<(), StoreError> {
        let path = self.path();
        if self.view.lock().sync_failed {
            let cause = std::io::Error::other("an earlier sync of it failed");
            return Err(StoreError::disk(path, "syncing a block")(cause));
        }
        let synced = self.data.sync_data();
        synced.map_err(StoreError::disk(path, "syncing a block")).inspect_err(|failure| {
            self.view.lock().sync_failed = true;
            self.volume.note_error(failure);
        })
    }

    /// Puts all that is written on stable storage, and its name.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// If that fails, or failed before.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.sync_data()?;
        let (path, is_name_synced) = {
            let mut view = self.view.lock();
            // From here on somebody may be told so, and what becomes of it must keep to that.
            view.was_synced = true;
            (view.path.clone(), view.is_name_synced)
        };
        if is_name_synced {
            return Ok(());
        }
        let folder = self.volume.layout().place(Place::Writing);
        let synced = self.volume.disk().sync_dir(&folder);
        synced
            .map_err(StoreError::disk(folder, "syncing the folder of open blocks"))
            .inspect_err(|failure| self.volume.note_error(failure))?;
        let mut view = self.view.lock();
        // It may have got another name meanwhile.
        view.is_name_synced |= view.path == path;
        Ok(())
    }

    /// Reads a file that was found at a start, so that its values are known.
    fn learn(&self) -> Result<(), StoreError> {
        if self.is_known() {
            return Ok(());
        }
        let (path, length) = (self.path(), self.length());
        let groups = read_groups(&*self.data, self.file_offset, length);
        let mut view = self.view.lock();
        if view.groups.is_some() {
            return Ok(()); // Somebody else was faster, and may have gone on since.
        }
        view.groups = Some(groups.map_err(StoreError::disk(path, "reading a block"))?);
        Ok(())
    }
}

fn too_short(path: PathBuf) -> StoreError {
    StoreError::disk(path, "reading a block")(std::io::ErrorKind::UnexpectedEof.into())
}

fn read_groups(
    data: &dyn DiskFile,
    file_offset: u64,
    length: u64,
) -> std::io::Result<Vec<ChainingValue>> {
    let mut buffer = vec![0; STEP_BYTES.min(length as usize)];
    let mut groups = Vec::with_capacity(groups_of(length));
    let mut offset = 0;
    while offset < length {
        let count = (length - offset).min(STEP_BYTES as u64) as usize;
        data.read_exact_at(&mut buffer[..count], offset)?;
        for group in buffer[..count].chunks(GROUP_BYTES as usize) {
            groups.push(group_chaining_value(file_offset + offset, group));
            offset += group.len() as u64;
        }
    }
    Ok(groups)
}

/// The bytes of the last group of a block of `length` bytes that ends inside it.
fn partial_bytes(
    data: &dyn DiskFile,
    path: &std::path::Path,
    length: u64,
) -> Result<Vec<u8>, StoreError> {
    let start = length / GROUP_BYTES * GROUP_BYTES;
    let mut bytes = vec![0; (length - start) as usize];
    let read = data.read_exact_at(&mut bytes, start);
    read.map_err(StoreError::disk(path, "reading a block"))?;
    Ok(bytes)
}

/// The value of the last group of a block of `length` bytes that ends inside it.
pub(super) fn partial_value(
    data: &dyn DiskFile,
    path: &std::path::Path,
    file_offset: u64,
    length: u64,
) -> Result<ChainingValue, StoreError> {
    let bytes = partial_bytes(data, path, length)?;
    Ok(group_chaining_value(file_offset + length / GROUP_BYTES * GROUP_BYTES, &bytes))
}

/// The tree over a block of `length` bytes whose groups have these values, to be gone on with.
pub(super) fn tree_of(
    key: ReplicaKey,
    data: &dyn DiskFile,
    path: &std::path::Path,
    file_offset: u64,
    length: u64,
    groups: &[ChainingValue],
) -> Result<BlockTree, StoreError> {
    let full = groups[..(length / GROUP_BYTES) as usize].to_vec();
    let mut tree = BlockTree::from_full_groups(file_offset, full, None);
    if !length.is_multiple_of(GROUP_BYTES) {
        let value = tree.push_group(&partial_bytes(data, path, length)?);
        if groups.last() != Some(&value) {
            let what = "the bytes of its last group do not match their value".to_owned();
            return Err(StoreError::Damaged { key, what });
        }
    }
    Ok(tree)
}

/// Whether these groups lead to a value.
pub(super) fn lead_to(groups: &[ChainingValue], value: &ChainingValue) -> bool {
    subtree_value(groups).as_ref() == Some(value)
}

impl OpenReplica {
    /// The values of the groups of its first `length` bytes.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn groups(&self, length: u64) -> Result<Vec<ChainingValue>, StoreError> {
        let nodes = self.sidecar.read_all_nodes()?;
        let leaves = nodes.chunks_exact(VALUE_BYTES).step_by(2);
        let mut groups: Vec<ChainingValue> =
            leaves.take(groups_of(length)).filter_map(ChainingValue::from_slice).collect();
        if length != self.length
            && !length.is_multiple_of(GROUP_BYTES)
            && let Some(last) = groups.last_mut()
        {
            let file_offset = self.sidecar.header().file_offset;
            *last = partial_value(&*self.data, &self.data_path, file_offset, length)?;
        }
        Ok(groups)
    }
}
