//! The page of the example `chat`, in a real browser.

use std::thread;
use std::time::Duration;

use long_polling::{Cursor, ServerInfo, Subscriber};
use serde_json::{Value, json};

use crate::site::Site;
use crate::support::until;
use crate::webdriver::{Browser, ENTER, TAB};

#[path = "../../examples/chat/page.rs"]
mod page;

/// Short, so that a test need not wait long until someone has left.
const PRESENCE: Duration = Duration::from_secs(2);

struct Chat(Site);

impl Chat {
    fn start() -> Self {
        Chat(Site::start(|info| page::serve(info, PRESENCE)))
    }

    fn publish(&self, room: &str, text: &str) {
        let message = json!({"from": "Server", "text": text});
        self.0.server().publish(room, &message).unwrap();
    }
}

/// The texts of the messages in the room that is shown.
fn messages(browser: &Browser) -> Vec<String> {
    let texts = "return [...document.querySelectorAll('.log:not([hidden]) .words')].map((it) => it.textContent)";
    let texts = browser.run(texts);
    serde_json::from_value(texts).unwrap()
}

fn has_messages(browser: &Browser, tab: &str, expected: &[&str]) {
    browser.switch_to(tab);
    until(&format!("{expected:?} are shown"), || {
        let shown = messages(browser);
        assert!(shown.len() <= expected.len(), "{shown:?} for {expected:?}");
        shown == expected
    });
}

fn has_status(browser: &Browser, tab: &str, words: &str) {
    browser.switch_to(tab);
    let status = "return document.getElementById('status').textContent";
    until(words, || {
        browser.run(status).as_str().unwrap().contains(words)
    });
}

fn say(browser: &Browser, tab: &str, name: &str, text: &str) {
    browser.switch_to(tab);
    browser.clear("#name");
    browser.type_into("#name", name);
    browser.type_into("#text", text);
    browser.type_into("#text", ENTER);
}

/// The lines of the console but for those that Chromium writes itself while no server is there.
fn unexpected(browser: &Browser) -> Vec<Value> {
    let mut lines = browser.console();
    lines.retain(|line| {
        let text = line["message"].as_str().unwrap_or_default();
        line["source"] != "network" || !text.contains("net::ERR_")
    });
    lines.retain(|line| line["level"] != "DEBUG");
    lines
}

fn open(browser: &Browser, chat: &Chat) -> String {
    browser.open(&chat.0.url);
    let tab = browser.tab();
    has_status(browser, &tab, "Connected");
    tab
}

#[test]
#[ignore = "needs Chromium"]
fn two_tabs_talk_over_a_restart_and_a_sleep_without_loss_repetition_or_error() {
    let mut chat = Chat::start();
    chat.publish("chat", "before the page");
    let browser = Browser::start();
    let one = open(&browser, &chat);
    let two = browser.new_tab();
    browser.switch_to(&two);
    open(&browser, &chat);
    has_messages(&browser, &one, &["before the page"]);

    say(&browser, &one, "Ann", "Hello <b>Bob</b>");
    has_messages(&browser, &two, &["before the page", "Hello <b>Bob</b>"]);
    say(&browser, &two, "Bob", "Hello Ann");
    let mut all = vec!["before the page", "Hello <b>Bob</b>", "Hello Ann"];
    has_messages(&browser, &one, &all);

    chat.0.stop();
    for tab in [&one, &two] {
        has_status(&browser, tab, "Connection lost");
    }
    chat.0.start_again();
    chat.publish("chat", "after the restart");
    all.push("after the restart");
    for tab in [&one, &two] {
        has_messages(&browser, tab, &all);
        has_status(&browser, tab, "Connected");
    }

    browser.switch_to(&one);
    let frozen = |state: &str| {
        browser.chromium("Page.setWebLifecycleState", json!({"state": state}));
    };
    frozen("frozen");
    chat.publish("chat", "while the tab sleeps");
    all.push("while the tab sleeps");
    has_messages(&browser, &two, &all);
    browser.switch_to(&one);
    frozen("active");
    has_messages(&browser, &one, &all);

    // A reload shows the history again, and rooms are apart.
    browser.post("/refresh", json!({}));
    has_messages(&browser, &one, &all);
    chat.publish("help", "in another room");
    let unread = "return document.querySelector('#rooms .unread:not([hidden])')?.textContent ?? ''";
    until("the message counts as unread", || {
        browser.run(unread) == "1 unread"
    });
    browser.click("#rooms li:nth-child(2) button");
    has_messages(&browser, &one, &["in another room"]);
    assert_eq!(browser.run(unread), "");
    chat.publish("my room", "history");
    browser.type_into("#room", "my room");
    browser.type_into("#room", ENTER);
    has_messages(&browser, &one, &["history"]);
    say(&browser, &one, "Ann", "a room of one's own");
    has_messages(&browser, &one, &["history", "a room of one's own"]);
    browser.click("#rooms li:nth-child(1) button");
    has_messages(&browser, &one, &all);
    let screen = json!({"width": 760, "height": 540, "deviceScaleFactor": 1, "mobile": false});
    browser.chromium("Emulation.setDeviceMetricsOverride", screen);
    has_people(&browser, &one, &["Ann", "Bob"]);
    save_screenshot(&browser, "chat");
    let gaps = "return document.querySelectorAll('.note').length";
    for tab in [&one, &two] {
        browser.switch_to(tab);
        assert_eq!(browser.run(gaps), 0);
        assert_eq!(unexpected(&browser), Vec::<Value>::new());
    }
}

/// Waits until the tab shows these entries in the list of who is here.
fn has_people(browser: &Browser, tab: &str, expected: &[&str]) {
    browser.switch_to(tab);
    let entries =
        "return [...document.querySelectorAll('#people li')].map((it) => it.textContent).sort()";
    until(&format!("{expected:?} are here"), || {
        browser.run(entries) == json!(expected)
    });
}

fn take_name(browser: &Browser, tab: &str, name: &str) {
    browser.switch_to(tab);
    browser.clear("#name");
    browser.type_into("#name", name);
    browser.type_into("#name", TAB);
}

#[test]
#[ignore = "needs Chromium"]
fn each_tab_shows_who_is_here_and_who_has_left() {
    let chat = Chat::start();
    let browser = Browser::start();
    let one = open(&browser, &chat);
    has_people(&browser, &one, &["1 guest"]);
    take_name(&browser, &one, "Ann & co.");
    // The guest is gone, too, after the time.
    has_people(&browser, &one, &["Ann & co."]);
    let two = browser.new_tab();
    browser.switch_to(&two);
    open(&browser, &chat);
    // Two tabs of one name are one person.
    has_people(&browser, &two, &["Ann & co."]);
    take_name(&browser, &two, "Bob");
    for tab in [&one, &two] {
        has_people(&browser, tab, &["Ann & co.", "Bob"]);
    }

    // A program is in one of the rooms.
    let url = format!("{}events", chat.0.url);
    let mut cid = Subscriber::new(url, "help")
        .name("Cid")
        .start_at(Cursor::Oldest);
    let stopper = cid.stopper();
    let follower = thread::spawn(move || cid.next().is_none());
    browser.switch_to(&one);
    browser.click("#rooms li:nth-child(2) button");
    has_people(&browser, &one, &["Ann & co.", "Bob", "Cid"]);
    browser.click("#rooms li:nth-child(1) button");
    has_people(&browser, &one, &["Ann & co.", "Bob"]);
    stopper.stop();
    assert!(follower.join().unwrap());

    browser.switch_to(&two);
    browser.close_tab();
    has_people(&browser, &one, &["Ann & co."]);
    browser.click("#rooms li:nth-child(2) button");
    has_people(&browser, &one, &["Ann & co."]);
    let live = "return document.getElementById('people').getAttribute('aria-live')";
    assert_eq!(browser.run(live), "polite");
    assert_eq!(unexpected(&browser), Vec::<Value>::new());

    // No client says who is in a room.
    let forged = "
        const body = JSON.stringify({ category: 'people/help', data: { names: ['Eve'], subscribers: 1 } });
        return fetch('/publish', { method: 'POST', body }).then((answer) => answer.status)";
    assert_eq!(browser.run(forged), 403);
}

#[test]
#[ignore = "needs Chromium"]
fn the_tab_key_reaches_everything_in_the_order_of_the_page() {
    let chat = Chat::start();
    let browser = Browser::start();
    open(&browser, &chat);
    let focused = "
        const it = document.activeElement;
        return it.id || it.getAttribute('aria-label') || it.firstChild?.textContent";
    let order = [
        "Skip to the message",
        "chat",
        "help",
        "random",
        "room",
        "Join",
        "Messages in chat",
        "name",
        "text",
        "Send",
    ];
    for expected in order {
        browser.press(TAB);
        assert_eq!(browser.run(focused), expected);
    }
    browser.post("/refresh", json!({}));
    browser.press(TAB);
    browser.press(ENTER);
    assert_eq!(browser.run(focused), "text");
    assert_eq!(unexpected(&browser), Vec::<Value>::new());
}

#[test]
#[ignore = "needs Chromium"]
fn a_loss_and_a_message_that_was_not_sent_are_visible() {
    let mut chat = Chat::start();
    chat.publish("chat", "lost");
    let browser = Browser::start();
    let tab = open(&browser, &chat);
    has_messages(&browser, &tab, &["lost"]);
    chat.0.stop();
    say(&browser, &tab, "Ann", "to nobody");
    let problem = "return document.getElementById('problem')";
    until("the problem is shown", || {
        let text = browser.run(&format!("{problem}.textContent"));
        text.as_str().unwrap().contains("Perhaps not sent")
    });
    assert_eq!(
        browser.run("return document.getElementById('text').value"),
        "to nobody"
    );
    // A server that has not kept the messages.
    let address = chat
        .0
        .url
        .trim_start_matches("http://")
        .trim_end_matches('/');
    chat.0.info = page::serve(ServerInfo::new(address), PRESENCE);
    chat.0.start_again();
    chat.publish("chat", "new");
    has_messages(&browser, &tab, &["lost", "new"]);
    let note = "return document.querySelector('.log:not([hidden]) .note')?.textContent ?? ''";
    let note = browser.run(note);
    assert!(note.as_str().unwrap().contains("missing"), "{note}");
    browser.click("#send button");
    has_messages(&browser, &tab, &["lost", "new", "to nobody"]);
    assert_eq!(browser.run(&format!("{problem}.hidden")), true);
}

#[test]
#[ignore = "needs Chromium"]
fn the_page_fits_a_phone_and_a_desk_light_and_dark_and_has_roles_and_names() {
    let chat = Chat::start();
    for at in 0..40 {
        chat.publish("chat", &format!("{at} {}", "x".repeat(60)));
    }
    chat.publish(
        "chat",
        "averylongwordthatdoesnotfitintoonelineofaphone"
            .repeat(5)
            .as_str(),
    );
    let browser = Browser::start();
    let tab = open(&browser, &chat);
    until("the history is there", || messages(&browser).len() == 41);
    for (selector, role, name) in [
        ("#status", "status", ""),
        ("nav", "navigation", "Rooms"),
        (".log", "log", "Messages in chat"),
        ("#people", "list", "Here now:"),
        ("#name", "textbox", "Your name"),
        ("#text", "textbox", "Message"),
        ("#room", "textbox", "Another room"),
        ("#send button", "button", "Send"),
        ("#join button", "button", "Join"),
        ("#rooms li button", "button", "chat"),
    ] {
        let expected = (role.to_owned(), name.to_owned());
        assert_eq!(browser.role_and_name(selector), expected, "{selector}");
    }
    until("the history has been read", || {
        browser.run("return document.querySelector('.log').getAttribute('aria-busy')") == "false"
    });
    let fits = "
        const inside = (it) => {
            const { left, right, top, bottom } = it.getBoundingClientRect();
            return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight;
        };
        const log = document.querySelector('.log');
        return document.documentElement.scrollWidth <= innerWidth
            && document.documentElement.scrollHeight <= innerHeight
            && ['#send button', '#join button', '#rooms button', '#text', '.log', '#status', '#people'].every((it) => inside(document.querySelector(it)))
            && log.scrollWidth <= log.clientWidth && log.clientHeight > 150;";
    let at_end = "
        const log = document.querySelector('.log');
        return log.scrollHeight - log.scrollTop - log.clientHeight < 2;";
    let contrast = "
        const channel = (it) => (it /= 255) <= 0.04045 ? it / 12.92 : ((it + 0.055) / 1.055) ** 2.4;
        const light = (color) => {
            const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(channel);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const back = (it) => {
            const { backgroundColor } = getComputedStyle(it);
            return /, 0\\)/.test(backgroundColor) ? back(it.parentElement) : backgroundColor;
        };
        return Math.min(...['.words', '.log time', '#status', '#here', '#people li', 'label', '#send button', '#text', '#rooms button', 'h1'].map((name) => {
            const it = document.querySelector(name);
            const [a, b] = [light(getComputedStyle(it).color), light(back(it))].sort((a, b) => b - a);
            return (a + 0.05) / (b + 0.05);
        }));";
    let mut backgrounds = Vec::new();
    for scheme in ["light", "dark"] {
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.chromium("Emulation.setEmulatedMedia", media);
        for (width, height) in [(320, 568), (390, 844), (1280, 800)] {
            let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
            browser.chromium("Emulation.setDeviceMetricsOverride", screen);
            assert_eq!(browser.run(fits), true, "{width} x {height} {scheme}");
            until("the newest message is in view", || {
                browser.run(at_end) == true
            });
            save_screenshot(&browser, &format!("{scheme}-{width}"));
        }
        // WCAG 2.2, criterion 1.4.3.
        let least = browser.run(contrast).as_f64().unwrap();
        assert!(least >= 4.5, "{least} in {scheme}");
        backgrounds.push(browser.run("return getComputedStyle(document.body).backgroundColor"));
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
    has_status(&browser, &tab, "Connected");
    assert_eq!(unexpected(&browser), Vec::<Value>::new());
}

/// Saves what the browser shows in the folder that `SCREENSHOTS` names.
fn save_screenshot(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("SCREENSHOTS") {
        // By the second frame, the page has drawn itself.
        let drawn =
            "return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))";
        browser.run(drawn);
        let image = browser.get("/screenshot");
        let image = image.as_str().expect("an image in base64");
        let path = std::path::Path::new(&folder).join(format!("{name}.png.base64"));
        std::fs::write(path, image).unwrap();
    }
}
