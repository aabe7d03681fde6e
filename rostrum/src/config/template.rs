//! The commented default configuration, generated from the configuration types: values from their
//! `Default`, comments from their doc comments. So it cannot say anything else than the code does.

use serde_json::Value as Schema;
use toml::{Table, Value};

/// Width at which comments are wrapped.
const WIDTH: usize = 96;

/// TOML text with a comment above every key, tables after the plain keys of their parent.
pub fn render(defaults: &Table, schema: &Schema) -> String {
    let mut out = String::new();
    table(&mut out, defaults, schema, schema, &mut Vec::new());
    out
}

/// Follows `$ref`, and picks the object out of `anyOf` (an `Option` of a struct).
fn resolve<'s>(root: &'s Schema, schema: &'s Schema) -> &'s Schema {
    let reference = schema
        .get("$ref")
        .and_then(Schema::as_str)
        .and_then(|path| path.strip_prefix('#'));
    if let Some(target) = reference.and_then(|pointer| root.pointer(pointer)) {
        return resolve(root, target);
    }
    for key in ["anyOf", "allOf", "oneOf"] {
        if let Some(first) = schema
            .get(key)
            .and_then(Schema::as_array)
            .and_then(|alternatives| {
                alternatives
                    .iter()
                    .find(|a| a.get("$ref").is_some() || a.get("properties").is_some())
            })
        {
            return resolve(root, first);
        }
    }
    schema
}

fn table(out: &mut String, values: &Table, schema: &Schema, root: &Schema, path: &mut Vec<String>) {
    let schema = resolve(root, schema);
    let empty = serde_json::Map::new();
    let properties = schema
        .get("properties")
        .and_then(Schema::as_object)
        .unwrap_or(&empty);
    let is_table = |value: Option<&Value>| matches!(value, Some(Value::Table(_)));
    for (key, property) in properties {
        match values.get(key) {
            value if is_table(value) => {}
            Some(value) => {
                comment(out, property, root);
                out.push_str(&format!("{key} = {value}\n\n"));
            }
            None => {
                comment(out, property, root);
                out.push_str(&format!("# {key} =\n\n"));
            }
        }
    }
    for (key, property) in properties {
        let Some(Value::Table(inner)) = values.get(key) else {
            continue;
        };
        path.push(key.clone());
        comment(out, property, root);
        out.push_str(&format!("[{}]\n", path.join(".")));
        table(out, inner, property, root, path);
        path.pop();
    }
}

fn comment(out: &mut String, property: &Schema, root: &Schema) {
    let text = property
        .get("description")
        .or_else(|| resolve(root, property).get("description"))
        .and_then(Schema::as_str)
        .unwrap_or_default();
    for paragraph in text.split('\n') {
        let mut line = String::from("#");
        for word in paragraph.split_whitespace() {
            if line.len() + 1 + word.len() > WIDTH {
                out.push_str(&line);
                out.push('\n');
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        out.push_str(&line);
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    /// Outer.
    #[derive(Serialize, Deserialize, JsonSchema, PartialEq, Debug)]
    struct Outer {
        /// How many.
        count: u32,
        /// Not set unless wanted.
        #[serde(skip_serializing_if = "Option::is_none")]
        extra: Option<String>,
        /// The inner part.
        inner: Inner,
    }

    #[derive(Serialize, Deserialize, JsonSchema, PartialEq, Debug)]
    struct Inner {
        /// Names of things, in order.
        names: Vec<String>,
    }

    #[test]
    fn template_has_a_comment_for_every_key_and_reads_back_as_the_default() {
        let outer = Outer {
            count: 3,
            extra: None,
            inner: Inner {
                names: vec!["a".into()],
            },
        };
        let values = Table::try_from(&outer).expect("a table");
        let schema = serde_json::to_value(schemars::schema_for!(Outer)).expect("JSON");
        let text = render(&values, &schema);
        assert_eq!(
            text,
            "# How many.\ncount = 3\n\n# Not set unless wanted.\n# extra =\n\n# The inner part.\n[inner]\n# Names of things, in order.\nnames = [\"a\"]\n\n"
        );
        assert_eq!(toml::from_str::<Outer>(&text).expect("valid TOML"), outer);
    }
}
