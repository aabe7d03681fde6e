//! The roles' tables of a configuration file: refused, or every problem of it told.
#![cfg_attr(fuzzing, no_main)]

use serde::Deserialize;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    registrar: registrar::Config,
    meeting_manager: meeting_manager::Config,
    switch: switch::Config,
}

rostrum_fuzz::target!(|data| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(file) = toml::from_str::<File>(text) else {
        return;
    };
    assert_eq!(
        file.registrar.check().is_ok(),
        file.registrar.problems().is_empty()
    );
    let manager = file.meeting_manager;
    assert_eq!(manager.check().is_ok(), manager.problems().is_empty());
    assert_eq!(
        file.switch.check().is_ok(),
        file.switch.problems().is_empty()
    );
});
