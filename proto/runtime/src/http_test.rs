//! Tests of the pages over a real socket.

use std::sync::atomic::{AtomicBool, Ordering};

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::net::memory::MemoryNet;
use crate::net::{Net, RealNet};

async fn ask(net: &dyn Net, address: &str, request: &str) -> String {
    let mut stream = net.connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: &str, path: &str) -> String {
    ask(&RealNet, address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[tokio::test]
async fn metrics_health_and_front_page_are_served_until_the_server_stops() {
    let (mut registry, requests) = (Registry::default(), Counter::<u64>::default());
    registry.register("requests", "Requests served", requests.clone());
    requests.inc_by(3);
    let well = Arc::new(AtomicBool::new(true));
    let health = Arc::clone(&well);
    let pages = Pages {
        title: "datanode <1>".to_owned(),
        registry: Arc::new(registry),
        health: Box::new(move || Health::new(health.load(Ordering::Relaxed)).with("blocks", 7)),
        page: Some(Box::new(|| "<p>seven blocks</p>".to_owned())),
    };
    let (tasks, listener) =
        (BackgroundTasks::default(), RealNet.bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    serve(listener, pages, &tasks);

    let metrics = get(&address, "/metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200 OK"), "{metrics}");
    assert!(metrics.contains("\nrequests_total 3\n"), "{metrics}");
    let health = get(&address, "/health").await;
    assert!(health.starts_with("HTTP/1.1 200 OK"), "{health}");
    assert!(health.ends_with("{\"blocks\":7,\"status\":\"ok\"}"), "{health}");
    well.store(false, Ordering::Relaxed);
    let health = get(&address, "/healthz").await;
    assert!(health.starts_with("HTTP/1.1 503 "), "{health}");
    let front = get(&address, "/").await;
    assert!(front.contains("<h1>datanode &lt;1&gt;</h1>\n<p>seven blocks</p>"), "{front}");
    assert!(get(&address, "/etc/passwd").await.starts_with("HTTP/1.1 404 "));

    assert!(ask(&RealNet, &address, "what is this\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
    let large = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "x".repeat(2 * REQUEST_BYTES_MAX));
    assert!(!ask(&RealNet, &address, &large).await.starts_with("HTTP/1.1 200"));

    assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, Ok(()));
    assert!(RealNet.connect(&address).await.is_err());
}

#[test]
fn text_cannot_leave_its_place_in_a_page() {
    assert_eq!(
        escape_html("<a href=\"x\">'&'</a>"),
        "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;"
    );
}

#[tokio::test(start_paused = true)]
async fn who_connects_and_says_nothing_is_hung_up_on() {
    let pages = Pages {
        title: String::new(),
        registry: Arc::default(),
        health: Box::new(Health::default),
        page: None,
    };
    let (tasks, net) = (BackgroundTasks::default(), MemoryNet::default());
    serve(net.bind("server:1").await.unwrap(), pages, &tasks);
    let answer =
        tokio::time::timeout(2 * HEADER_TIMEOUT, ask(&net, "server:1", "GET / HTTP/1.1\r\n")).await;
    assert!(!answer.expect("it would wait for ever").contains("200 OK"));
    assert_eq!(tasks.shutdown(Duration::from_secs(5)).await, Ok(()));
}
