//! Generates the gRPC and message code from `wire/` without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=wire");
    let files = ["client", "datanode", "admin", "block_stream", "journal", "store"]
        .map(|name| format!("doldam/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["wire"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
