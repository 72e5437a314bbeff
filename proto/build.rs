//! Compiles the .proto files with protox, so that no `protoc` needs to be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(
        [
            "sandpiper/v1/common.proto",
            "sandpiper/v1/device.proto",
            "sandpiper/v1/operator.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        .btree_map(".")
        // Chunks are handed on without a copy.
        .bytes(".sandpiper.v1.FetchChunk")
        .bytes(".sandpiper.v1.UploadChunk")
        .compile_fds(files)?;
    Ok(())
}
