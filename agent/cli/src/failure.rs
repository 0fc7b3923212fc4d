//! Errors as people read them.

/// An error with its causes on one line. A cause that the text before it already tells is left out.
pub(crate) fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let cause = std::io::Error::other("disk full");
        let error = anyhow::Error::new(cause)
            .context("cannot write: disk full")
            .context("saving failed");
        assert_eq!(text(&error), "saving failed: cannot write: disk full");
    }
}
