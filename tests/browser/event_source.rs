//! `EventSource` of a real browser, with no client of this crate.

use std::time::Duration;

use long_polling::ServerInfo;
use long_polling::server::{Request, Response};
use serde_json::{Value, json};

use crate::site::Site;
use crate::support::until;
use crate::webdriver::Browser;

/// Notes what each event brings, and its position.
const PAGE: &str = r#"<!doctype html><title>stream</title><script>
const seen = [], ids = [], states = [];
const source = new EventSource("/events?category=c&timeout=TIMEOUT");
source.onopen = () => states.push("open");
source.onerror = () => states.push(source.readyState === EventSource.CONNECTING ? "waits" : "closed");
source.addEventListener("gap", () => seen.push("gap"));
source.onmessage = ({ data, lastEventId }) => {
    const event = JSON.parse(data);
    seen.push(event.data);
    ids.push(event.id === lastEventId);
};
</script>"#;

fn site(timeout: u32) -> Site {
    let page = PAGE.replace("TIMEOUT", &timeout.to_string());
    Site::start(|info: ServerInfo| {
        let info = info.stream_heartbeat(Duration::from_millis(200));
        info.fallback(move |request: &Request| match request.path() {
            "/" => Response::html(200, page.clone()),
            _ => Response::new(204),
        })
    })
}

fn has_seen(browser: &Browser, expected: &[Value]) {
    until(&format!("{expected:?} have come"), || {
        let seen = browser.run("return seen");
        let seen = seen.as_array().expect("a list");
        assert!(seen.len() <= expected.len(), "{seen:?} for {expected:?}");
        seen == expected
    });
}

fn until_open(browser: &Browser, times: usize) {
    let open = "return states.filter((state) => state === 'open').length";
    until("the stream is open", || {
        browser.run(open).as_u64() >= Some(times as u64)
    });
}

#[test]
#[ignore = "needs Chromium"]
fn a_page_gets_each_event_once_over_a_restart_of_the_server() {
    let mut site = site(60);
    let browser = Browser::start();
    browser.open(&site.url);
    until_open(&browser, 1);
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..10 {
            let data = json!([round, number, "é\r\n"]);
            site.server().publish("c", &data).unwrap();
            expected.push(data);
        }
        has_seen(&browser, &expected);
        site.stop();
        site.start_again();
        // Before the page is back.
        expected.push(json!(round));
        site.server().publish("c", &json!(round)).unwrap();
        has_seen(&browser, &expected);
        until_open(&browser, round + 2);
    }
    assert_eq!(browser.run("return ids.every((it) => it)"), true);
    assert_eq!(
        browser.run("return states.includes('closed')"),
        false,
        "{:?}",
        browser.run("return states")
    );
}

#[test]
#[ignore = "needs Chromium"]
fn a_page_comes_back_by_itself_after_the_end_of_a_stream() {
    let site = site(1);
    let browser = Browser::start();
    browser.open(&site.url);
    let mut expected = Vec::new();
    for number in 1..=4 {
        until_open(&browser, number);
        // In the stream, or between it and the next.
        for _ in 0..2 {
            expected.push(json!(number));
            site.server().publish("c", &number).unwrap();
        }
        has_seen(&browser, &expected);
    }
    let states = browser.run("return states");
    let states = states.as_array().expect("a list");
    assert!(states.iter().all(|state| state != "closed"), "{states:?}");
}
