//! Lists everything below a directory, page by page, in bounded memory per directory.
//!
//! `cargo run --example list_tree -- 127.0.0.1:8020 /`

use doldam_client::Client;
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [namenodes, root] = &arguments[..] else {
        return Err("usage: list_tree NAMENODE REMOTE".into());
    };
    let client = Client::connect(namenodes).await?;

    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        let mut entries = client.list(&directory);
        while let Some(entry) = entries.try_next().await? {
            let path = format!("{}/{}", directory.trim_end_matches('/'), entry.path);
            if entry.is_dir() {
                println!("{path}/");
                directories.push(path);
            } else {
                println!("{path} ({} bytes)", entry.length);
            }
        }
    }
    Ok(())
}
