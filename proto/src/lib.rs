//! The gRPC contract of podbroker, as Rust types.
//!
//! The source of truth is `podbroker/v1/*.proto`; its comments are the contract, and they stand at the generated items.
//! The code is checked in, so that neither the broker nor the Python package needs a protobuf compiler; the test
//! `generated_code_is_fresh` proves that it is what the proto files say.

pub mod codec;

/// Version 1 of the contract.
#[expect(
    clippy::pedantic,
    clippy::large_enum_variant,
    clippy::allow_attributes,
    missing_docs,
    reason = "generated code"
)]
pub mod v1 {
    include!("gen/podbroker.v1.rs");
}

/// The encoded `FileDescriptorSet` of the contract, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/podbroker.v1.binpb");
