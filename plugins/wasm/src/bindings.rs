//! What `wit/` says, as types of this language.
wasmtime::component::bindgen!({
    path: "../../wit",
    world: "adit:filter/every-phase",
    imports: {
        "adit:filter/http-client.fetch": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "adit:filter/context.exchange": crate::handles::ExchangeHandle,
        "adit:filter/context.fields": crate::handles::FieldsHandle,
        "adit:filter/context.request-head": crate::handles::HeadHandle,
        "adit:filter/context.response-head": crate::handles::HeadHandle,
    },
});
