//! Traces that visitors begin, and what services are told.

use super::*;

const INCOMING: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// What the service is told, and the spans that come of it.
async fn told(
    config: Config,
    fields: &[(&'static str, &str)],
) -> (HeaderMap, Vec<Span>, Vec<LogRecord>) {
    let fake = Fake::default();
    fake.http.answer(|_| Ok(answer(200, Vec::new())));
    let filter = Arc::new(Otlp::new(config, &mut fake.env()).unwrap());
    let chain = Chain::compile(vec![Placed::new("edge/otlp", filter.hooks())]).unwrap();
    let info = ConnectionInfo {
        id: 1,
        peer: "192.0.2.1:1".parse().unwrap(),
        transport: Transport::Tls,
        hello: None,
        tls: None,
    };
    let tunnel = Arc::new(TunnelInfo::default());
    let Connected::Admitted(connection) = chain.connect(Arc::new(info), tunnel).await else {
        panic!("nobody refuses here")
    };
    let mut exchange = chain.exchange(connection);
    let mut head = head();
    for (name, value) in fields {
        head.headers.append(*name, value.parse().unwrap());
    }
    let outcome = Outcome {
        request: RequestLine::of(&head, chain.logged_request_fields()),
        ..outcome()
    };
    chain.request(&mut head, &mut exchange, None).await;
    chain.log(&exchange, &Arc::new(outcome));
    drop(chain);
    for (_, job) in fake.jobs.take() {
        job.await;
    }
    let (spans, records) = sent(&fake);
    (head.headers, spans, records)
}

#[tokio::test]
async fn a_service_is_told_its_place_in_a_trace_that_a_trusted_visitor_began() {
    let trusting = || Config {
        trust_incoming: true,
        ..config()
    };
    let begun = &[("traceparent", INCOMING), ("tracestate", "a=1")][..];
    let twice = &[("traceparent", INCOMING), ("traceparent", INCOMING)][..];
    let wrong = &[("traceparent", "00-x"), ("tracestate", "a=1")][..];
    for (config, fields, continues) in [
        (config(), &[][..], false),
        (config(), begun, false),
        (trusting(), &[][..], false),
        (trusting(), begun, true),
        (trusting(), twice, false),
        (trusting(), wrong, false),
    ] {
        let (headers, spans, records) = told(config, fields).await;
        let span = spans.first().unwrap();
        let parents: Vec<_> = headers.get_all("traceparent").iter().collect();
        assert_eq!(parents.len(), 1, "{headers:?}");
        let expected = format!(
            "00-{}-{}-01",
            hex::encode(&span.trace_id),
            hex::encode(&span.span_id)
        );
        assert_eq!(headers["traceparent"], expected);
        assert_eq!(expected.starts_with(&INCOMING[..36]), continues);
        assert_eq!(headers.contains_key("tracestate"), continues);
        let parent = if continues { "b7ad6b7169203331" } else { "" };
        assert_eq!(hex::encode(&span.parent_span_id), parent);
        assert_eq!(span.trace_state, if continues { "a=1" } else { "" });
        assert_eq!(records.first().unwrap().trace_id, span.trace_id);
    }
}

#[tokio::test]
async fn what_is_not_sampled_is_passed_on_and_not_sent() {
    let none = Config {
        sample_ratio: 0.0,
        ..config()
    };
    let (headers, spans, records) = told(none, &[]).await;
    assert!(headers["traceparent"].to_str().unwrap().ends_with("-00"));
    assert_eq!((spans.len(), records.len()), (0, 1));
    let unsampled = INCOMING.replace("-01", "-00");
    let trusting = Config {
        trust_incoming: true,
        logs: false,
        ..config()
    };
    let (headers, spans, records) = told(trusting, &[("traceparent", &unsampled)]).await;
    assert!(headers["traceparent"].to_str().unwrap().ends_with("-00"));
    assert_eq!((spans.len(), records.len()), (0, 0));
}

#[tokio::test]
async fn without_spans_of_its_own_it_leaves_the_visitors_trace_alone() {
    for (trust_incoming, trace) in [(true, &INCOMING[3..35]), (false, "")] {
        let logs = Config {
            traces: false,
            trust_incoming,
            ..config()
        };
        let (headers, spans, records) = told(logs, &[("traceparent", INCOMING)]).await;
        assert_eq!(headers["traceparent"], INCOMING);
        assert!(spans.is_empty());
        assert_eq!(hex::encode(&records.first().unwrap().trace_id), trace);
    }
}
