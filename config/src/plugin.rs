//! Plugins: `[plugin.NAME]` makes a component a kind of filter, `[wasm]` is what they all run in.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::problem::{Place, Problem};
use crate::reader::Reader;
use crate::section::Section;
use crate::values::{is_label, not_a_name};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Most plugins of one engine: each has compiled code in memory.
const PLUGINS_MAX: usize = 200;

/// Hooks that one instance may serve at most.
const REUSE_MAX: u32 = 1_000_000_000;

/// `[wasm]`: how many instances of components there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wasm {
    /// At a time, over all usual plugins.
    pub instances: u32,
    /// Memory of an instance of a usual plugin, in bytes. A plugin that asks for more is a large one, and one that
    /// begins with more than a quarter of it: it brings the runtime of a language along.
    pub instance_memory: usize,
    /// At a time, over all large plugins.
    pub large_instances: u32,
    /// Memory of an instance of a large plugin, in bytes.
    pub large_memory: usize,
}

impl Wasm {
    pub(crate) fn read(mut table: Reader<'_>) -> Self {
        let wasm = Self {
            instances: table.count("instances", 512, 1..=10_000),
            instance_memory: table.size("instance-memory", 16 * MIB, MIB..=1024 * MIB),
            large_instances: table.count("large-instances", 32, 1..=10_000),
            large_memory: table.size("large-memory", 256 * MIB, MIB..=4095 * MIB),
        };
        table.finish();
        wasm
    }
}

/// `[plugin.NAME]`: a component that becomes the kind of filter `NAME`.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// The kind of filter it becomes.
    pub name: String,
    /// Its file.
    pub component: PathBuf,
    /// The SHA-256 its file must have, in hexadecimal.
    pub sha256: Option<String>,
    /// The stage its filters stand at; the default without it.
    pub stage: Option<String>,
    /// Hosts that it may send requests to, where their addresses are public.
    pub allow_hosts: Vec<String>,
    /// Hosts that it may send requests to wherever their addresses are.
    pub allow_private_hosts: Vec<String>,
    /// Whether it may say who a visitor is.
    pub establish_identity: bool,
    /// How many hooks one instance may serve.
    pub reuse: u32,
    /// How much of everything it may use.
    pub limits: PluginLimits,
    /// Where its table begins.
    pub place: Place,
}

/// `[plugin.NAME.limits]`: how much of everything a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Memory of an instance, in bytes; none for what usual plugins have, or large ones.
    pub memory: Option<usize>,
    /// Fuel for setting an instance up.
    pub start_fuel: u64,
    /// Fuel for one decision.
    pub decide_fuel: u64,
    /// Fuel for one piece of a body or stream, one datagram, one line of the log.
    pub piece_fuel: u64,
    /// How long a decision may take, waits included.
    pub wait: Duration,
    /// How often one hook may call the host.
    pub host_calls: u32,
    /// How many fields it may leave in a head.
    pub fields: usize,
    /// How long the value of a field may be that it sets, in bytes.
    pub field_bytes: usize,
    /// How many bytes it may keep for one exchange.
    pub variable_bytes: usize,
    /// How large a reply of its own may be, in bytes.
    pub reply_bytes: usize,
    /// How many lines it may log in a second.
    pub log_lines: u32,
    /// How long a line may be, in bytes.
    pub log_line_bytes: usize,
    /// How large an answer to a request of its own may be, in bytes.
    pub fetch_bytes: usize,
}

impl PluginLimits {
    fn read(mut table: Reader<'_>) -> Self {
        let fuel = 10_000..=100_000_000_000;
        let second = Duration::from_secs(1);
        let limits = Self {
            memory: table
                .field("memory")
                .is_some()
                .then(|| table.size("memory", MIB, 64 * KIB..=4095 * MIB)),
            start_fuel: table.count("start-fuel", 100_000_000, fuel.clone()),
            decide_fuel: table.count("decide-fuel", 20_000_000, fuel.clone()),
            piece_fuel: table.count("piece-fuel", 20_000_000, fuel),
            wait: table.duration("wait", second * 5, second / 1000..=second * 120),
            host_calls: table.count("host-calls", 10_000, 1..=10_000_000),
            fields: table.count("fields", 128, 1..=4096),
            field_bytes: table.size("field-bytes", 16 * KIB, 64..=MIB),
            variable_bytes: table.size("variable-bytes", 16 * KIB, 0..=16 * MIB),
            reply_bytes: table.size("reply-bytes", MIB, 0..=64 * MIB),
            log_lines: table.count("log-lines", 100, 0..=100_000),
            log_line_bytes: table.size("log-line-bytes", 4 * KIB, 64..=MIB),
            fetch_bytes: table.size("fetch-bytes", MIB, 0..=16 * MIB),
        };
        table.finish();
        limits
    }
}

impl Plugin {
    /// Reads a plugin's table that stands somewhere else, such as in the file its author tries it with: all but
    /// `component`, which is given.
    ///
    /// # Errors
    /// Everything that is wrong with it, with positions.
    pub fn of_section(
        section: &Section,
        name: &str,
        component: PathBuf,
    ) -> Result<Self, Vec<Problem>> {
        section.read(|table| Self::with(name, Some(component), table))
    }

    fn read(name: &str, mut table: Reader<'_>) -> Option<Self> {
        let component = table.required("component", "write the path of its file");
        Self::with(name, component, table)
    }

    fn with(name: &str, component: Option<PathBuf>, mut table: Reader<'_>) -> Option<Self> {
        let place = table.place();
        let limits = PluginLimits::read(table.table("limits"));
        let (allow_hosts, allow_private_hosts): (Vec<String>, Vec<String>) = (
            table.or("allow-hosts", Vec::new()),
            table.or("allow-private-hosts", Vec::new()),
        );
        for (key, hosts) in [
            ("allow-hosts", &allow_hosts),
            ("allow-private-hosts", &allow_private_hosts),
        ] {
            if let Some(wrong) = hosts.iter().find(|host| !is_host(host)) {
                table.wrong(key, format!("`{wrong}` is not a host, write a name such as `api.example.com` or an address, in lower case and without a port"));
            }
        }
        let plugin = (
            table.value("sha256"),
            table.value("stage"),
            table.or("establish-identity", false),
            table.count("reuse", 1, 1..=REUSE_MAX),
        );
        table.finish();
        let (sha256, stage, establish_identity, reuse) = plugin;
        Some(Self {
            name: name.to_owned(),
            component: component?,
            sha256,
            stage,
            allow_hosts,
            allow_private_hosts,
            establish_identity,
            reuse,
            limits,
            place,
        })
    }
}

/// Whether this is a host as requests name one: no scheme, port, path or wildcard.
fn is_host(text: &str) -> bool {
    let address = text.trim_start_matches('[').trim_end_matches(']');
    address.parse::<std::net::IpAddr>().is_ok()
        || (!text.is_empty() && text.len() <= 253 && text.split('.').all(is_label))
}

pub(crate) fn read_plugins(table: &Reader<'_>) -> BTreeMap<String, Plugin> {
    let mut plugins = BTreeMap::new();
    for (entry, field) in table.named() {
        if !is_label(&entry.key) {
            field.wrong(not_a_name(&entry.key));
        }
        if plugins.len() >= PLUGINS_MAX {
            field.wrong(format!("more than {PLUGINS_MAX} plugins, use fewer"));
            break;
        }
        let plugin = field
            .table()
            .and_then(|table| Plugin::read(&entry.key, table));
        plugins.extend(plugin.map(|plugin| (entry.key.clone(), plugin)));
    }
    plugins
}
