//! Takes a table's keys one by one and collects every problem on the way.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::problem::{self, Place, Problem};
use crate::section::Section;
use crate::surroundings::Surroundings;
use crate::tree::{At, Entry, Node, Source, Value};

/// What reading needs beyond the tree, and where its findings go.
pub(crate) struct Reading {
    pub(crate) source: Arc<Source>,
    pub(crate) around: Arc<Surroundings>,
    pub(crate) problems: RefCell<Vec<Problem>>,
    pub(crate) warnings: RefCell<Vec<Problem>>,
}

impl Reading {
    pub(crate) fn report(&self, place: Place, key: &str, message: impl Into<String>) {
        self.problems
            .borrow_mut()
            .push(Problem::new(place, key, message));
    }
}

/// One table, its keys taken one by one.
pub(crate) struct Reader<'t> {
    reading: &'t Reading,
    entries: &'t [Entry],
    at: At,
    path: String,
    asked: Vec<&'static str>,
}

impl<'t> Reader<'t> {
    pub(crate) fn root(reading: &'t Reading, root: &'t Node) -> Self {
        let field = Field {
            reading,
            node: root,
            path: String::new(),
        };
        field.table().unwrap_or_else(|| field.empty_table())
    }

    /// The value of `key`, if it is written and right. A wrong one is reported.
    pub(crate) fn value<T: FromField>(&mut self, key: &'static str) -> Option<T> {
        T::from_field(&self.field(key)?)
    }

    /// The value of `key`, or `default` where it is not written (or wrong, which is reported).
    pub(crate) fn or<T: FromField>(&mut self, key: &'static str, default: T) -> T {
        self.value(key).unwrap_or(default)
    }

    /// The value of `key`, which must be written; `what` says what to write.
    pub(crate) fn required<T: FromField>(&mut self, key: &'static str, what: &str) -> Option<T> {
        if self.field(key).is_none() {
            self.missing(key, what);
        }
        self.value(key)
    }

    pub(crate) fn missing(&self, key: &str, what: &str) {
        self.reading
            .report(self.place(), &self.path_of(key), format!("missing, {what}"));
    }

    /// The table under `key`; an empty one at this table's position if there is none.
    pub(crate) fn table(&mut self, key: &'static str) -> Self {
        let written = self.field(key).and_then(|field| field.table());
        written.unwrap_or_else(|| Self {
            reading: self.reading,
            entries: &[],
            at: self.at.clone(),
            path: self.path_of(key),
            asked: Vec::new(),
        })
    }

    /// Every key of this table with its field: for tables whose keys are names.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&'t Entry, Field<'t>)> + use<'t> {
        let (reading, path) = (self.reading, self.path.clone());
        self.entries.iter().map(move |entry| {
            let field = Field {
                reading,
                node: &entry.node,
                path: join(&path, &entry.key),
            };
            (entry, field)
        })
    }

    /// The field under `key`, if it is written.
    pub(crate) fn field(&mut self, key: &'static str) -> Option<Field<'t>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        Some(Field {
            reading: self.reading,
            node: &entry.node,
            path: self.path_of(key),
        })
    }

    /// The entries nobody asked for: a filter's own settings.
    pub(crate) fn rest(&self) -> Vec<Entry> {
        self.entries
            .iter()
            .filter(|entry| !self.asked.iter().any(|asked| *asked == entry.key))
            .cloned()
            .collect()
    }

    /// Reports every key nobody asked for.
    pub(crate) fn finish(self) {
        for entry in self.entries {
            if !self.asked.iter().any(|asked| *asked == entry.key) {
                self.reading.report(
                    self.reading.source.place(&entry.at),
                    &self.path_of(&entry.key),
                    problem::unknown("key", &entry.key, &self.asked),
                );
            }
        }
    }

    /// Reports `message` at the value of `key`, or at the table if it is not written.
    pub(crate) fn wrong(&self, key: &str, message: impl Into<String>) {
        let at = self
            .entries
            .iter()
            .find(|entry| entry.key == key)
            .map_or(&self.at, |entry| &entry.node.at);
        self.reading
            .report(self.reading.source.place(at), &self.path_of(key), message);
    }

    pub(crate) fn place(&self) -> Place {
        self.reading.source.place(&self.at)
    }

    fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

/// One value with its key, ready to be read as a type.
pub(crate) struct Field<'t> {
    pub(crate) reading: &'t Reading,
    pub(crate) node: &'t Node,
    pub(crate) path: String,
}

impl<'t> Field<'t> {
    /// Reports `message` here.
    pub(crate) fn wrong(&self, message: impl Into<String>) {
        self.reading.report(self.place(), &self.path, message);
    }

    /// Notes something that works and should be otherwise.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        let warning = Problem::new(self.place(), self.path.clone(), message);
        self.reading.warnings.borrow_mut().push(warning);
    }

    pub(crate) fn place(&self) -> Place {
        self.reading.source.place(&self.node.at)
    }

    /// The string written here; anything else is reported, with `what` as what to write.
    pub(crate) fn text(&self, what: &str) -> Option<&'t str> {
        if let Value::String(text) = &self.node.value {
            return Some(text);
        }
        self.wrong(format!(
            "{} is not right here, use {what}",
            self.node.kind()
        ));
        None
    }

    /// The table written here; anything else is reported.
    pub(crate) fn table(&self) -> Option<Reader<'t>> {
        if let Value::Table(entries) = &self.node.value {
            return Some(Reader {
                entries,
                ..self.empty_table()
            });
        }
        self.wrong(format!(
            "{} is not right here, use a table",
            self.node.kind()
        ));
        None
    }

    /// The table written here, for whoever knows what is in it to read; anything else is reported.
    pub(crate) fn section(&self) -> Option<Section> {
        self.table()?;
        Some(Section::new(
            Arc::clone(&self.reading.source),
            Arc::clone(&self.reading.around),
            self.path.clone(),
            self.node.clone(),
            self.node.clone(),
        ))
    }

    fn empty_table(&self) -> Reader<'t> {
        Reader {
            reading: self.reading,
            entries: &[],
            at: self.node.at.clone(),
            path: self.path.clone(),
            asked: Vec::new(),
        }
    }

    /// The items of the list written here; anything else is reported.
    pub(crate) fn items(&self) -> Option<Vec<Self>> {
        let Value::Array(items) = &self.node.value else {
            self.wrong(format!(
                "{} is not right here, use a list",
                self.node.kind()
            ));
            return None;
        };
        let items = items.iter().enumerate().map(|(index, node)| Self {
            reading: self.reading,
            node,
            path: join(&self.path, &index.to_string()),
        });
        Some(items.collect())
    }

    /// A path, from the configuration's folder if it is relative.
    pub(crate) fn path_from_base(&self, path: impl AsRef<Path>) -> PathBuf {
        self.reading.around.path(path)
    }
}

/// A type that a configuration value can be read as.
pub(crate) trait FromField: Sized {
    /// The value, or `None` after reporting what is wrong with it.
    fn from_field(field: &Field<'_>) -> Option<Self>;
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        path => format!("{path}.{key}"),
    }
}
