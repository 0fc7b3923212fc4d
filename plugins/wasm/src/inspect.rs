//! What a component is made of, for whoever wants to know before an engine loads it.

use wasmtime::Engine;
use wasmtime::component::Component as Compiled;
use wasmtime::component::types::ComponentItem;

use crate::component::Component;

/// The WIT package, and the versions of it that this host speaks: those that begin so.
const PACKAGE: &str = "adit:filter/";
const SPOKEN: &str = "0.1.";

/// Where both kinds of WebAssembly begin, and what tells them apart.
const MAGIC: &[u8] = b"\0asm";
const CORE_LAYER: &[u8] = &[0, 0];

/// An interface that a component imports, and what it uses of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Import {
    /// Its name with package and version, such as `adit:filter/store@0.1.0`.
    pub interface: String,
    /// Functions and methods, such as `get` or `[method]exchange.identity`.
    pub functions: Vec<String>,
}

impl Import {
    /// Whether it is this function of this interface of our package, of whatever version.
    #[must_use]
    pub fn uses(&self, interface: &str, function: &str) -> bool {
        let ours = self.interface.strip_prefix(PACKAGE);
        let name = ours.and_then(|name| name.split('@').next());
        name == Some(interface) && self.functions.iter().any(|used| used == function)
    }
}

impl Component {
    /// What it imports.
    #[must_use]
    pub fn imports(&self) -> Vec<Import> {
        let ty = self.code.pre.component().component_type();
        let engine = &self.pool.engine;
        let imports = ty.imports(engine).map(|(name, import)| Import {
            interface: name.to_owned(),
            functions: match &import.ty {
                ComponentItem::ComponentInstance(instance) => instance
                    .exports(engine)
                    .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
                    .map(|(name, _)| name.to_owned())
                    .collect(),
                _ => Vec::new(),
            },
        });
        imports.collect()
    }

    /// What it exports, with package and version.
    #[must_use]
    pub fn exports(&self) -> Vec<String> {
        let ty = self.code.pre.component().component_type();
        ty.exports(&self.pool.engine)
            .map(|(name, _)| name.to_owned())
            .collect()
    }
}

/// What a file is that is no component, where its first bytes tell.
pub(crate) fn not_a_component(bytes: &[u8]) -> Option<&'static str> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Some("it does not begin as WebAssembly does");
    };
    (rest.get(2..4) == Some(CORE_LAYER)).then_some(
        "it is a core module, build for the target `wasm32-wasip2` (or make a component of it with `wasm-tools component new`)",
    )
}

/// The first interface of our package that it wants in a version this host does not speak.
pub(crate) fn other_version(engine: &Engine, compiled: &Compiled) -> Option<String> {
    let ty = compiled.component_type();
    let other = |name: &str| {
        let version = name.strip_prefix(PACKAGE)?.split_once('@')?.1;
        (!version.starts_with(SPOKEN)).then(|| name.to_owned())
    };
    ty.exports(engine)
        .find_map(|(name, _)| other(name))
        .or_else(|| ty.imports(engine).find_map(|(name, _)| other(name)))
}
