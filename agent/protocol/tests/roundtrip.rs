//! Whatever can be said survives being said.
#![allow(clippy::unwrap_used, reason = "tests")]

use adit_protocol::frame::Decoder;
use adit_protocol::message::{
    ClientDetails, CloseTunnelReq, CloseTunnelRsp, ControlChannelLiveness, DatagramChannelClose,
    Error, Heartbeat, IpAddress, Message, OpenControlChannelReq, OpenControlChannelRsp,
    OpenTunnelReq, OpenTunnelRsp, ProxyConnReq, ProxyConnRsp, ProxyReq, ProxyRsp, ServerDetails,
    ServerMessage, StreamReq, StreamRsp, TunnelProperties, open_control_channel_rsp,
    open_tunnel_rsp, stream_rsp,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::net::IpAddr;

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn maybe() -> impl Strategy<Value = Option<String>> {
    option::of(text())
}

fn error() -> impl Strategy<Value = Error> {
    (any::<i32>(), maybe()).prop_map(|(code, message)| Error { code, message })
}

fn liveness() -> impl Strategy<Value = ControlChannelLiveness> {
    any::<(u32, u32)>().prop_map(|(interval, timeout)| ControlChannelLiveness {
        heartbeat_interval_ms: interval,
        heartbeat_timeout_ms: timeout,
    })
}

fn details() -> impl Strategy<Value = ClientDetails> {
    vec(maybe(), 7).prop_map(|fields| {
        let mut fields = fields.into_iter();
        let mut next = || fields.next().unwrap();
        ClientDetails {
            agent: next(),
            channel: next(),
            version: next(),
            os: next(),
            arch: next(),
            token: next(),
            protocol_version: next(),
        }
    })
}

fn tunnel() -> impl Strategy<Value = TunnelProperties> {
    (
        vec(maybe(), 11),
        vec(vec(text(), 0..3), 4),
        vec(any::<Option<bool>>(), 9),
        btree_map(text(), text(), 0..4),
        any::<Option<u32>>(),
        option::of((any::<i64>(), 0..1_000_000_000_i32)),
    )
        .prop_map(|(texts, lists, switches, labels, port, created)| {
            let mut texts = texts.into_iter();
            let mut text = || texts.next().unwrap();
            let mut lists = lists.into_iter();
            let mut list = || lists.next().unwrap();
            let mut switches = switches.into_iter();
            let mut switch = || switches.next().unwrap();
            TunnelProperties {
                id: text(),
                creation_date: created
                    .map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos }),
                name: text(),
                r#type: text(),
                publish: switch(),
                protocol: text(),
                labels,
                geoip: list(),
                trusted_ips: list(),
                host: text(),
                tls_mode: text(),
                tls_alpns: list(),
                tls_min_version: text(),
                tls_ciphers: list(),
                mtls_auth: switch(),
                mtls_cacert_pem: text(),
                http_version: text(),
                http_use_tls: switch(),
                token_auth: switch(),
                rstream_auth: switch(),
                challenge_mode: switch(),
                hostname: text(),
                port,
                upstream_tls: switch(),
                datagram_guaranteed_delivery: switch(),
                allow_cross_region_routing: switch(),
            }
        })
}

fn control() -> impl Strategy<Value = Message> {
    let open = (option::of(details()), option::of(liveness())).prop_map(|(details, liveness)| {
        Message::new(OpenControlChannelReq {
            client_details: details,
            liveness,
        })
    });
    let opened =
        (text(), maybe(), option::of(liveness())).prop_map(|(client_id, agent, liveness)| {
            Message::new(OpenControlChannelRsp {
                result: Some(open_control_channel_rsp::Result::Ok(
                    open_control_channel_rsp::Ok {
                        client_id,
                        server_details: Some(ServerDetails {
                            agent,
                            ..ServerDetails::default()
                        }),
                        liveness,
                    },
                )),
            })
        });
    let tunnel_req = (text(), tunnel()).prop_map(|(request_id, tunnel)| {
        Message::new(OpenTunnelReq {
            request_id,
            tunnel_properties: Some(Box::new(tunnel)),
        })
    });
    let tunnel_rsp = (text(), tunnel()).prop_map(|(request_id, tunnel)| {
        Message::new(OpenTunnelRsp {
            request_id,
            result: Some(open_tunnel_rsp::Result::TunnelProperties(Box::new(tunnel))),
        })
    });
    let beat = any::<(u64, u64)>().prop_map(|(sequence, acknowledgement)| {
        Message::new(Heartbeat {
            sequence,
            acknowledgement,
        })
    });
    prop_oneof![
        open,
        opened,
        tunnel_req,
        tunnel_rsp,
        beat,
        text().prop_map(|tunnel_id| Message::new(CloseTunnelReq { tunnel_id })),
        text().prop_map(|tunnel_id| Message::new(CloseTunnelRsp { tunnel_id })),
        text().prop_map(|message| Message::new(ServerMessage { message })),
    ]
}

fn streams() -> impl Strategy<Value = Message> {
    let wanted = (text(), text(), maybe(), any::<Option<IpAddr>>(), maybe()).prop_map(
        |(tunnel_id, stream_id, secret, source, proxy_endpoint)| {
            Message::new(ProxyConnReq {
                tunnel_id,
                stream_id,
                secret,
                source_ip: source.map(IpAddress::from),
                proxy_endpoint,
            })
        },
    );
    let answered = (text(), option::of(error()))
        .prop_map(|(stream_id, error)| Message::new(ProxyConnRsp { stream_id, error }));
    let brought = (option::of(details()), text(), any::<Option<bool>>()).prop_map(
        |(client_details, stream_id, zero_rtt)| {
            Message::new(ProxyReq {
                client_details,
                stream_id,
                zero_rtt,
            })
        },
    );
    let dialled = (text(), any::<(Option<bool>, Option<bool>)>()).prop_map(
        |(tunnel_id_name, (zero_rtt, datagram_channel))| {
            Message::new(StreamReq {
                client_details: None,
                tunnel_id_name,
                zero_rtt,
                datagram_channel,
            })
        },
    );
    let closed = (text(), option::of(error()))
        .prop_map(|(stream_id, error)| Message::new(DatagramChannelClose { stream_id, error }));
    prop_oneof![
        wanted,
        answered,
        brought,
        dialled,
        closed,
        option::of(error()).prop_map(|error| Message::new(ProxyRsp { error })),
        error().prop_map(|error| Message::new(StreamRsp {
            result: Some(stream_rsp::Result::Error(error)),
        })),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(messages in vec(prop_oneof![control(), streams()], 0..6)) {
        let mut decoder = Decoder::new();
        for message in &messages {
            message.put_frame(decoder.buffer()).unwrap();
        }
        for message in &messages {
            let body = decoder.next_frame().unwrap().unwrap();
            prop_assert_eq!(&Message::from_frame(&body).unwrap(), message);
        }
        prop_assert!(!decoder.is_partial());
    }
}
