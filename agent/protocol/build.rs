//! Turns `proto/rstrm.proto` into Rust, without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/rstrm.proto");
    let descriptors = protox::compile(["rstrm.proto"], ["proto"])?;
    prost_build::Config::new()
        // Labels keep one order on the wire and in listings.
        .btree_map(["."])
        // By far the largest part of any message, and rare: it would size every envelope.
        .boxed(".rstrm.OpenTunnelReq.tunnel_properties")
        .boxed(".rstrm.OpenTunnelRsp.result.tunnel_properties")
        // Both carry credentials; src/message.rs prints them masked.
        .skip_debug([".rstrm.ClientDetails", ".rstrm.ProxyConnReq"])
        .compile_fds(descriptors)?;
    Ok(())
}
