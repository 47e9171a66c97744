//! Compiles the `.proto` files without a system protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "proto";
    let files = ["record", "mesh", "raft", "store", "agent"].map(|name| format!("{root}/ringfence/v1/{name}.proto"));
    println!("cargo::rerun-if-changed={root}");
    let descriptors = protox::compile(files, [root])?;
    // Hand-written: it can carry bytes that are encoded already, once for all followers.
    let builder = tonic_prost_build::configure().extern_path(".ringfence.v1.FollowEvent", "crate::follow::wire::FollowEvent");
    builder.compile_fds(descriptors)?;
    Ok(())
}
