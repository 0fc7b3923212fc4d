//! What `wit/` says the host gives, as types of this language.
#![allow(
    missing_docs,
    reason = "generated from the WIT, which has the documentation"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "adit:filter/host",
    generate_all,
});
