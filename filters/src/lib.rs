//! The filter contract: hooks, verdicts, facts and the chain they are compiled into.
