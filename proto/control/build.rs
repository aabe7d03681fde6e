//! Generates the control protocol's types from its schema.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tonic_prost_build::configure()
        .bytes(".")
        .compile_protos(&["proto/rostrum/control/v1/control.proto"], &["proto"])?;
    Ok(())
}
