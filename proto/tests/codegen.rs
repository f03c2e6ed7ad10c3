//! Generates the code from the proto files and compares it with what is checked in. `BLESS=1` rewrites it.

use std::fs;
use std::path::Path;

use prost::Message as _;

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<_> = fs::read_dir(root.join("podbroker/v1"))
        .expect("the proto folder is there")
        .map(|entry| format!("podbroker/v1/{}", entry.expect("readable").file_name().to_string_lossy()))
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "proto"))
        .collect();
    files.sort();
    let mut descriptors = protox::compile(&files, [root]).expect("the proto files compile");

    let out = tempfile::tempdir().expect("a temporary folder");
    let mut config = tonic_prost_build::Config::new();
    config.bytes([".podbroker.v1.LogLine.content", ".podbroker.v1.LogChunk.line_cursor", ".podbroker.v1.Event.cursor"]);
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .out_dir(out.path())
        .compile_fds_with_config(descriptors.clone(), config)
        .expect("the code generates");

    // Comments are in the generated code; in the binary they would only weigh.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let fresh = [
        ("podbroker.v1.rs", fs::read(out.path().join("podbroker.v1.rs")).expect("generated")),
        ("podbroker.v1.binpb", descriptors.encode_to_vec()),
    ];
    for (name, content) in fresh {
        let checked_in = root.join("src/gen").join(name);
        #[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the test")]
        let bless = std::env::var_os("BLESS").is_some();
        if bless {
            fs::write(&checked_in, &content).expect("the checked-in file is writable");
        }
        let same = fs::read(&checked_in).is_ok_and(|old| old == content);
        assert!(
            same,
            "{name} is not what the proto files say; run `BLESS=1 cargo test -p podbroker-proto` and commit it"
        );
    }
}
