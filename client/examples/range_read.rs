//! Reads a few ranges of a large file without reading the rest, each byte verified.
//!
//! `cargo run --example range_read -- 127.0.0.1:8020 /large/file`

use doldam_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [namenodes, path] = &arguments[..] else {
        return Err("usage: range_read NAMENODE REMOTE".into());
    };
    let client = Client::connect(namenodes).await?;
    let file = client.open(path).await?;
    let length = file.status().length;

    let (middle, tail) = (length / 2, length.saturating_sub(16));
    let ranges = [0..16, middle..middle + 16, tail..length];
    for (range, bytes) in ranges.iter().zip(file.read_ranges(&ranges).await?) {
        println!("{range:?}: {bytes:02x?}");
    }
    let verification = file.verification();
    println!("{} bytes of {length} were read and verified", verification.bytes_verified);
    Ok(())
}
