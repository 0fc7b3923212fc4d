//! Engine configuration: TOML text to typed values, every problem with its position.
