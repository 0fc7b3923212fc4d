//! The wire examples of the protocol description, octet by octet, in both directions.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use adit_protocol::frame::Decoder;
use adit_protocol::message::{
    ClientDetails, CloseControlChannelReq, CloseControlChannelRsp, ControlChannelLiveness, Error,
    Heartbeat, IpAddress, Message, OpenControlChannelReq, OpenControlChannelRsp, OpenTunnelRsp,
    ProxyConnReq, ProxyConnRsp, ProxyReq, ProxyRsp, StreamReq, StreamRsp, open_control_channel_rsp,
    open_tunnel_rsp, stream_rsp,
};
use std::net::Ipv4Addr;

const STREAM_ID: &str = "0102030405060708090a0b0c";

fn check(message: impl Into<Message>, example: &str) {
    let message = message.into();
    let wire = hex::decode(example.replace(' ', "")).unwrap();
    assert_eq!(
        hex::encode(message.to_frame().unwrap()),
        hex::encode(&wire),
        "{message:?}"
    );
    let mut decoder = Decoder::new();
    decoder.buffer().extend_from_slice(&wire);
    let body = decoder.next_frame().unwrap().unwrap();
    assert_eq!(Message::from_frame(&body).unwrap(), message);
    assert!(decoder.into_rest().is_empty());
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

// agent-protocol §17
#[test]
fn control_channel_messages_match_the_examples() {
    check(
        OpenControlChannelReq {
            client_details: Some(ClientDetails {
                agent: text("a"),
                token: text("tok"),
                protocol_version: text("1.4.5"),
                ..ClientDetails::default()
            }),
            liveness: Some(ControlChannelLiveness {
                heartbeat_interval_ms: 5000,
                heartbeat_timeout_ms: 0,
            }),
        },
        "0000001e 0a1c0a150a030a0161 32050a03746f6b 3a070a05312e342e35 1203088827",
    );
    check(
        OpenControlChannelRsp {
            result: Some(open_control_channel_rsp::Result::Ok(
                open_control_channel_rsp::Ok {
                    client_id: "c1".to_owned(),
                    server_details: None,
                    liveness: Some(ControlChannelLiveness {
                        heartbeat_interval_ms: 5000,
                        heartbeat_timeout_ms: 60_000,
                    }),
                },
            )),
        },
        "00000011 120f0a0d0a026331 1a0708882710e0d403",
    );
    let beat = |sequence, acknowledgement| Heartbeat {
        sequence,
        acknowledgement,
    };
    check(beat(0, 0), "00000002 7a00");
    check(beat(1, 0), "00000004 7a020801");
    check(beat(0, 1), "00000004 7a021001");
    check(CloseControlChannelReq {}, "00000002 1a00");
    check(CloseControlChannelRsp {}, "00000002 2200");
    check(
        OpenTunnelRsp {
            request_id: "r".to_owned(),
            result: Some(open_tunnel_rsp::Result::Error(Error {
                code: 8000,
                message: text("Hostname is already in use."),
            })),
        },
        "00000029 32270a0172 1a2208c03e 121d0a1b486f73746e616d6520697320616c726561647920696e207573652e",
    );
}

// agent-protocol §17
#[test]
fn stream_messages_match_the_examples() {
    check(
        ProxyConnReq {
            tunnel_id: "t1".to_owned(),
            stream_id: STREAM_ID.to_owned(),
            secret: text("s"),
            source_ip: Some(IpAddress::from(std::net::IpAddr::from(Ipv4Addr::new(
                192, 0, 2, 10,
            )))),
            proxy_endpoint: None,
        },
        "0000002c 4a2a0a027431 1218303130323033303430353036303730383039306130623063 1a030a0173 22050d0a0200c0",
    );
    check(
        ProxyConnRsp {
            stream_id: STREAM_ID.to_owned(),
            error: None,
        },
        "0000001c 521a0a18303130323033303430353036303730383039306130623063",
    );
    check(
        ProxyReq {
            client_details: Some(ClientDetails {
                token: text("s"),
                ..ClientDetails::default()
            }),
            stream_id: STREAM_ID.to_owned(),
            zero_rtt: Some(true),
        },
        "00000027 5a250a0532030a0173 1218303130323033303430353036303730383039306130623063 1a020801",
    );
    check(ProxyRsp { error: None }, "00000002 6200");
    check(
        StreamReq {
            client_details: None,
            tunnel_id_name: "api".to_owned(),
            zero_rtt: Some(false),
            datagram_channel: None,
        },
        "00000009 6a071203617069 1a00",
    );
    check(
        StreamRsp {
            result: Some(stream_rsp::Result::StreamId("s1".to_owned())),
        },
        "00000006 72040a027331",
    );
}

#[test]
fn every_seed_of_the_fuzz_corpus_is_whole_frames_of_known_messages() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/channel");
    let mut seeds = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let mut decoder = Decoder::new();
        decoder
            .buffer()
            .extend_from_slice(&std::fs::read(entry.unwrap().path()).unwrap());
        while let Some(body) = decoder.next_frame().unwrap() {
            assert!(Message::from_frame(&body).unwrap().payload.is_some());
        }
        assert!(!decoder.is_partial());
        seeds += 1;
    }
    assert!(seeds >= 14, "one seed for each example at least");
}
