//! Stores a local file, fetches it again, and compares what `b3sum` would print.
//!
//! `cargo run --example put_and_get -- 127.0.0.1:8020 LOCAL /remote/path COPY`

use std::path::Path;

use doldam_client::{Client, GetOptions, PutOptions, WriteOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [namenodes, local, remote, copy] = &arguments[..] else {
        return Err("usage: put_and_get NAMENODE LOCAL REMOTE COPY".into());
    };
    let client = Client::connect(namenodes).await?;

    let create = WriteOptions { parents: true, overwrite: true, ..WriteOptions::default() };
    let options = PutOptions { create, ..PutOptions::default() };
    let put = client.put_file(Path::new(local), remote, options).await?;
    println!("stored {} bytes, {} block(s) written twice", put.bytes, put.rewritten_blocks);

    let options = GetOptions { overwrite: true, ..GetOptions::default() };
    let got = client.get_file(remote, Path::new(copy), options).await?;
    println!("fetched and verified {} bytes", got.verification.bytes_verified);

    let digest = got.status.digest.ok_or("not a file")?;
    println!("{digest}  {copy}");
    Ok(())
}
