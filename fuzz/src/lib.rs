//! What the fuzz targets share.

/// Makes a fuzz target of a closure over bytes.
///
/// Built by `scripts/fuzz` (with `--cfg fuzzing`) it is a libFuzzer target. Built as anything else is, it is
/// a program that runs the files named on its command line through the closure: to look at a crash.
#[macro_export]
macro_rules! target {
    (|$data:ident| $body:block) => {
        fn run($data: &[u8]) {
            $body
        }

        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| run(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            $crate::replay(run)
        }
    };
}

/// Runs every file named on the command line.
///
/// # Errors
/// A file cannot be read.
pub fn replay(run: fn(&[u8])) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        let data = std::fs::read(&path)?;
        run(&data);
        println!("{}: {} bytes, fine", path.display(), data.len());
    }
    Ok(())
}
