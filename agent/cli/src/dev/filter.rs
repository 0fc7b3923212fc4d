//! A filter of one's own before what `adit dev` publishes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use toml::{Table, Value};

/// Where its table is, beside the component: what tries the filter also says how it is set.
const CASES: &str = "cases.toml";

/// The policies, as text of a configuration: the line for each request, and the filter.
pub(super) fn policies(component: Option<&Path>) -> anyhow::Result<String> {
    let mut filters = vec![table([("use", "request-lines".into())])];
    let mut policies = Table::new();
    if let Some(component) = component {
        let (name, plugin, filter) = plugin(component)?;
        policies.insert("plugin".into(), table([(&name, plugin.into())]).into());
        filters.push(filter);
    }
    let filters: Vec<Value> = filters.into_iter().map(Value::Table).collect();
    let policy = table([("filters", filters.into())]);
    policies.insert("policy".into(), table([("dev", policy.into())]).into());
    let project = table([("policies", vec![Value::from("dev")].into())]);
    policies.insert(
        "project".into(),
        table([("default", project.into())]).into(),
    );
    toml::to_string(&policies).context("the filter's table cannot be written")
}

/// What the filter is called, its plugin's table and its own.
fn plugin(component: &Path) -> anyhow::Result<(String, Table, Table)> {
    let shown = component.display();
    let file: PathBuf = std::path::absolute(component)?;
    if !file.is_file() {
        bail!("there is no component `{shown}`: `adit plugin build` makes one");
    }
    let name = file.file_stem().and_then(|stem| stem.to_str());
    let name = name.with_context(|| format!("`{shown}` has no name that can be written"))?;
    // As cargo names files, where filters have names of their own.
    let name = name.replace('_', "-");
    let beside = file.with_file_name(CASES);
    let mut cases: Table = match fs::read_to_string(&beside) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("`{}` is not TOML", beside.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Table::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", beside.display()));
        }
    };
    let mut part = |key: &str| match cases.remove(key) {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    };
    let (mut plugin, mut filter) = (part("plugin"), part("config"));
    // The file changes whenever it is built.
    plugin.remove("sha256");
    let path = file.to_str().context("its path cannot be written")?;
    plugin.insert("component".into(), path.into());
    filter.insert("use".into(), name.as_str().into());
    Ok((name, plugin, filter))
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
