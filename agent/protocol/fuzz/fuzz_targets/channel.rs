//! Any bytes as the input of a connection: frames, messages, and both ends of a control channel.
//!
//! Run from `agent/protocol` with `cargo +nightly fuzz run channel`.
#![no_main]

use std::time::Instant;

use adit_protocol::Version;
use adit_protocol::agent::AgentChannel;
use adit_protocol::engine::{EngineChannel, EngineEvent};
use adit_protocol::frame::Decoder;
use adit_protocol::handshake::{ClientHandshake, Opening};
use adit_protocol::liveness::{EnginePolicy, Interval};
use adit_protocol::message::{ClientDetails, Message, ServerDetails, TunnelProperties};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let now = Instant::now();
    let messages = messages(input);
    for message in &messages {
        if let Ok(frame) = message.to_frame() {
            let again = Message::from_frame(&frame[4..]).expect("what was encoded decodes");
            assert_eq!(&again, message);
        }
    }

    let mut dialer = ClientHandshake::dial("t", ClientDetails::default(), false);
    dialer.buffer().extend_from_slice(input);
    let _ = dialer.advance();

    let mut agent = AgentChannel::open(ClientDetails::default(), Some(Interval::DEFAULT));
    for message in messages.clone() {
        if agent.handle(now, message).is_err() {
            break;
        }
        agent.open_tunnel("r", TunnelProperties::default());
    }

    let mut messages = messages.into_iter();
    let Some(Ok(Opening::Control(request))) = messages.next().map(Opening::read) else {
        return;
    };
    let policy = EnginePolicy::default();
    let mut engine = EngineChannel::open(
        &request,
        Version::CURRENT,
        "c".to_owned(),
        ServerDetails::default(),
        &policy,
        now,
    );
    for message in messages {
        match engine.handle(now, message) {
            Ok(Some(EngineEvent::OpenTunnel {
                request_id,
                properties,
            })) => {
                engine.tunnel_opened(&request_id, *properties);
            }
            Ok(_) => {}
            Err(_) => break,
        }
        while engine.poll_message().is_some() {}
    }
});

fn messages(input: &[u8]) -> Vec<Message> {
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(input);
    let mut messages = Vec::new();
    while let Ok(Some(body)) = decoder.next_frame() {
        messages.extend(Message::from_frame(&body));
    }
    messages
}
