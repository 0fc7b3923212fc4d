//! A filter whose root context works by the clock.

use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType, Status};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Root {
    ticks: u32,
    last: u32,
    times: u32,
    queue: u32,
    again: u32,
}

/// Adds to a number in shared data, whoever else does so.
fn add(key: &str) {
    loop {
        let (value, cas) = hostcalls::get_shared_data(key).unwrap();
        let next = read(value) + 1;
        match hostcalls::set_shared_data(key, Some(&next.to_le_bytes()), cas) {
            Ok(()) => return,
            Err(Status::CasMismatch) => {}
            Err(status) => panic!("{status:?}"),
        }
    }
}

fn read(value: Option<Vec<u8>>) -> u64 {
    value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()))
}

impl Context for Root {}

impl RootContext for Root {
    fn on_vm_start(&mut self, _: usize) -> bool {
        self.ticks = hostcalls::define_metric(MetricType::Counter, "clockwork.ticks").unwrap();
        self.last = hostcalls::define_metric(MetricType::Gauge, "clockwork.last").unwrap();
        self.times = hostcalls::define_metric(MetricType::Histogram, "clockwork.times").unwrap();
        self.queue = hostcalls::register_shared_queue("visits").unwrap();
        self.again = hostcalls::register_shared_queue("again").unwrap();
        self.set_tick_period(Duration::from_millis(20));
        true
    }

    fn on_tick(&mut self) {
        hostcalls::increment_metric(self.ticks, 1).unwrap();
        hostcalls::record_metric(self.last, 7).unwrap();
        hostcalls::record_metric(self.times, 3).unwrap();
        assert_eq!(
            hostcalls::increment_metric(self.ticks, -1),
            Err(Status::BadArgument)
        );
        add("ticks");
        let (die, _) = hostcalls::get_shared_data("die").unwrap();
        if die.is_some_and(|die| !die.is_empty()) {
            hostcalls::set_shared_data("die", Some(b""), None).unwrap();
            panic!("by the clock");
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        if queue == self.again {
            // It is never empty for long.
            let item = hostcalls::dequeue_shared_queue(queue).unwrap();
            hostcalls::enqueue_shared_queue(queue, item.as_deref()).unwrap();
            return;
        }
        while let Some(item) = hostcalls::dequeue_shared_queue(queue).unwrap() {
            assert_eq!(item, b"one");
            add("visits");
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Shown {
            queue: self.queue,
            again: self.again,
        }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Shown {
    queue: u32,
    again: u32,
}

impl Context for Shown {}

impl HttpContext for Shown {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap();
        match path.as_str() {
            "/visit" => hostcalls::enqueue_shared_queue(self.queue, Some(b"one")).unwrap(),
            "/again" => hostcalls::enqueue_shared_queue(self.again, Some(b"one")).unwrap(),
            "/die" => hostcalls::set_shared_data("die", Some(b"yes"), None).unwrap(),
            _ => {}
        }
        let number = |key: &str| read(hostcalls::get_shared_data(key).unwrap().0);
        let text = format!("ticks {} visits {}", number("ticks"), number("visits"));
        self.send_http_response(200, vec![], Some(text.as_bytes()));
        Action::Pause
    }
}
