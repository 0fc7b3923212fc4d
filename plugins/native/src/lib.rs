//! Filters built into Adit, one module each, in folders named for their stage.
