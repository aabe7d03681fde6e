//! The users' file in both forms: read or refused with the line, and with a realm never more than without.
#![cfg_attr(fuzzing, no_main)]

use std::path::Path;

use registrar::users::{UsersError, parse};

rostrum_fuzz::target!(|data| {
    let text = String::from_utf8_lossy(data);
    for path in ["users.toml", "users.csv"] {
        let path = Path::new(path);
        let free = parse(path, &text, None);
        let bound = parse(path, &text, Some("example.org"));
        if let Ok(bound) = &bound {
            let free = free.as_ref().expect("a realm only forbids");
            assert_eq!(free.len(), bound.len());
        }
        for refused in [free.err(), bound.err()].into_iter().flatten() {
            let UsersError::Line { line, .. } = refused else {
                panic!("{refused}");
            };
            assert!(
                (1..=text.lines().count().max(1) + 1).contains(&line),
                "{line}"
            );
        }
    }
});
