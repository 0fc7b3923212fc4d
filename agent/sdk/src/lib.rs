//! The Adit agent as a library: connect, create tunnels, accept streams, dial.
