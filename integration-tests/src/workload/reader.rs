//! A client that only reads.

use std::sync::Arc;

use doldam_client::{Client, ErrorKind};
use doldam_runtime::random::{Random, SeededRandom};

use super::{Shared, count, read};

/// Reads any file of anybody, again and again.
pub(super) async fn run(client: Client, random: SeededRandom, shared: Arc<Shared>) {
    while !shared.is_stopping() {
        let begun = {
            let mut history = shared.history();
            let files = history.files();
            let index = random.below(files.len().max(1) as u64) as usize;
            files.get(index).map(|path| history.begin_read(path))
        };
        let Some(begun) = begun else {
            tokio::task::yield_now().await;
            continue;
        };
        match read(&client, begun.path()).await {
            Ok(content) => {
                let verdict = shared.history().seen(&begun, &content);
                shared.check(verdict);
                count(&shared.reads);
            }
            // Too many nodes may be down, or the file was replaced or deleted under the reader.
            Err(error) if error.kind() != ErrorKind::Damaged => count(&shared.failures),
            Err(error) => shared.violation(begun.path(), format!("a reader was told: {error}")),
        }
    }
}
