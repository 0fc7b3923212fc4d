//! An OpenTelemetry collector on loopback that keeps what it is sent.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One request it was sent.
#[derive(Clone, Debug)]
pub struct Export {
    /// The head, as it came.
    pub head: String,
    pub body: Vec<u8>,
}

/// A collector that takes everything.
pub struct Collector {
    pub port: u16,
    exports: Arc<Mutex<Vec<Export>>>,
    count: watch::Receiver<usize>,
}

impl Collector {
    pub async fn start() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// On a socket that is there already.
    pub fn on(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let exports = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let kept = Arc::clone(&exports);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept), counter.clone()));
            }
        });
        Self {
            port,
            exports,
            count,
        }
    }

    /// What it was sent so far.
    pub fn exports(&self) -> Vec<Export> {
        self.exports.lock().unwrap().clone()
    }

    /// Waits until it was sent that many requests.
    pub async fn received(&mut self, at_least: usize) {
        let enough = self.count.wait_for(|count| *count >= at_least);
        enough.await.unwrap();
    }
}

async fn serve(mut stream: TcpStream, kept: Arc<Mutex<Vec<Export>>>, count: watch::Sender<usize>) {
    let mut buffer = Vec::new();
    loop {
        let Some(export) = read(&mut stream, &mut buffer).await else {
            return;
        };
        kept.lock().unwrap().push(export);
        count.send_modify(|count| *count += 1);
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Export> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer.drain(..end).collect()).unwrap();
    let lower = head.to_ascii_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let length: usize = length.parse().unwrap();
    while buffer.len() < length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer.drain(..length).collect();
    Some(Export { head, body })
}
