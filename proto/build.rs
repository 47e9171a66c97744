//! Compiles the `.proto` files without a system protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "proto";
    let files =
        ["record", "mesh", "raft", "agent", "maintenance"].map(|name| format!("{root}/ringfence/v1/{name}.proto"));
    println!("cargo::rerun-if-changed={root}");
    let descriptors = protox::compile(files, [root])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
