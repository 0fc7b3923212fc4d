//! What an instance of a component takes from the start, read from its file before anything is compiled.

use wasmparser::{Parser, Payload};

/// A page of memory, where a module does not say otherwise, in bytes.
const PAGE_BYTES_LOG2: u32 = 16;

/// What one instance takes from the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Needs {
    /// The largest memory, in bytes.
    pub(crate) memory: usize,
    /// The largest table, in elements.
    pub(crate) table: usize,
    /// Core modules.
    pub(crate) cores: u32,
}

impl Needs {
    /// What a component needs. Of a file that is none, what stands before the first mistake counts: who compiles it
    /// will say what is wrong.
    pub(crate) fn of(component: &[u8]) -> Self {
        let mut needs = Self::default();
        for payload in Parser::new(0).parse_all(component) {
            let Ok(payload) = payload else { break };
            match payload {
                Payload::ModuleSection { .. } => needs.cores = needs.cores.saturating_add(1),
                Payload::MemorySection(memories) => {
                    for memory in memories.into_iter().flatten() {
                        let page = memory.page_size_log2.unwrap_or(PAGE_BYTES_LOG2);
                        let page = 1u64.checked_shl(page).unwrap_or(u64::MAX);
                        let bytes = memory.initial.saturating_mul(page);
                        needs.memory = needs.memory.max(size(bytes));
                    }
                }
                Payload::TableSection(tables) => {
                    for table in tables.into_iter().flatten() {
                        needs.table = needs.table.max(size(table.ty.initial));
                    }
                }
                _ => {}
            }
        }
        needs
    }
}

fn size(of: u64) -> usize {
    usize::try_from(of).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::Needs;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).expect("a short one");
        [&[id, length], content].concat()
    }

    fn module(pages: u8, elements: u8) -> Vec<u8> {
        let table = section(4, &[1, 0x70, 0, elements]);
        let memory = section(5, &[1, 0, pages]);
        section(1, &[MODULE, &table, &memory].concat())
    }

    #[test]
    fn the_largest_of_each_counts_wherever_it_is() {
        let inner = [COMPONENT, &module(70, 3), &section(1, MODULE)].concat();
        let outer = [COMPONENT, &module(2, 9), &section(4, &inner)].concat();
        let expected = Needs {
            memory: 70 << 16,
            table: 9,
            cores: 3,
        };
        assert_eq!(Needs::of(&outer), expected);
        assert_eq!(Needs::of(b"no component"), Needs::default());
    }
}
