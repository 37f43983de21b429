//! Adds lines to a log, each of them to be seen at once, and the last also to survive a loss of power.
//!
//! `cargo run --example append_log -- 127.0.0.1:8020 /logs/app.log "first line" "second line"`

use doldam_client::Client;
use tokio::io::AsyncWriteExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [namenodes, path, lines @ ..] = &arguments[..] else {
        return Err("usage: append_log NAMENODE REMOTE LINE...".into());
    };
    let client = Client::connect(namenodes).await?;

    let mut log = if client.try_stat(path).await?.is_some() {
        client.append(path).open().await?
    } else {
        client.create(path).parents(true).open().await?
    };
    for line in lines {
        log.write_all(line.as_bytes()).await?;
        log.write_all(b"\n").await?;
        log.flush().await?; // From here on everybody who opens the log sees the line.
    }
    log.sync().await?; // From here on it is on stable storage on every datanode that has it.
    println!("{} bytes so far", client.stat(path).await?.length);

    let report = log.close().await?;
    println!("{} bytes were added", report.bytes);
    Ok(())
}
