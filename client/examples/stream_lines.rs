//! Writes lines as they come in on standard input, then reads the file back line by line.
//!
//! `seq 1000 | cargo run --example stream_lines -- 127.0.0.1:8020 /numbers`

use doldam_client::Client;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [namenodes, path] = &arguments[..] else {
        return Err("usage: stream_lines NAMENODE REMOTE".into());
    };
    let client = Client::connect(namenodes).await?;

    let mut file = client.create(path).parents(true).overwrite(true).open().await?;
    // Flushes whenever there is nothing to read, so that others see the lines that came so far.
    tokio::io::copy(&mut tokio::io::stdin(), &mut file).await?;
    let report = file.close().await?;
    println!("{} bytes are stored", report.bytes);

    let mut lines = BufReader::new(client.open(path).await?).lines();
    let mut count = 0;
    while let Some(_line) = lines.next_line().await? {
        count += 1;
    }
    println!("{count} lines were read back");
    Ok(())
}
