//! Puts the built web client, where there is one, into the binary.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let dist =
        Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("../web/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    let mut files = Vec::new();
    collect(&dist, &mut files);
    files.sort();
    let mut source = String::from("pub static FILES: &[(&str, &[u8])] = &[\n");
    for file in &files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file
            .strip_prefix(&dist)
            .expect("below dist")
            .to_string_lossy()
            .replace('\\', "/");
        let path = fs::canonicalize(file).expect("exists");
        writeln!(source, "    ({name:?}, include_bytes!({path:?})),").expect("writing to a string");
    }
    source.push_str("];\n");
    fs::write(
        Path::new(&env::var("OUT_DIR").expect("set by cargo")).join("web.rs"),
        source,
    )
    .expect("OUT_DIR is writable");
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for path in entries.flatten().map(|e| e.path()) {
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
