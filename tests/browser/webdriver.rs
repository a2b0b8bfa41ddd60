//! A headless Chromium, by the WebDriver protocol over plain HTTP.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// One key of an element in answers of the protocol (W3C WebDriver, section 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
pub(crate) const ENTER: &str = "\u{e007}";
pub(crate) const TAB: &str = "\u{e004}";

/// Dropping it ends the browser.
pub(crate) struct Browser {
    driver: Child,
    agent: ureq::Agent,
    /// The URL of the session.
    session: String,
    _profile: TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("chromedriver can't be run ({error}): apt-get install chromium-driver")
            });
        let port = port_of(&mut driver);
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(60)))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        let profile = tempfile::tempdir().unwrap();
        let folder = profile.path().display().to_string();
        let mut browser = Browser {
            driver,
            agent: config.into(),
            session: format!("http://127.0.0.1:{port}/session"),
            _profile: profile,
        };
        let options = json!({"args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            format!("--user-data-dir={folder}"),
        ]});
        let capabilities = json!({
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let session = browser.post("", json!({"capabilities": {"alwaysMatch": capabilities}}));
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    /// Sends a command, and returns the value of the answer.
    pub(crate) fn post(&self, command: &str, body: Value) -> Value {
        let url = format!("{}{command}", self.session);
        let response = self.agent.post(&url).send(body.to_string());
        value(command, response)
    }

    pub(crate) fn get(&self, command: &str) -> Value {
        let url = format!("{}{command}", self.session);
        value(command, self.agent.get(&url).call())
    }

    /// A command of Chromium's own protocol.
    pub(crate) fn chromium(&self, command: &str, parameters: Value) {
        let body = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", body);
    }

    /// The tab that commands go to.
    pub(crate) fn tab(&self) -> String {
        self.get("/window").as_str().expect("a tab").to_owned()
    }

    pub(crate) fn new_tab(&self) -> String {
        let tab = self.post("/window/new", json!({"type": "tab"}));
        tab["handle"].as_str().expect("a tab").to_owned()
    }

    /// Closes the tab that commands go to.
    pub(crate) fn close_tab(&self) {
        value(
            "close",
            self.agent.delete(format!("{}/window", self.session)).call(),
        );
    }

    pub(crate) fn switch_to(&self, tab: &str) {
        self.post("/window", json!({"handle": tab}));
    }

    pub(crate) fn open(&self, url: &str) {
        self.post("/url", json!({"url": url}));
    }

    /// What the body of this function in JavaScript returns.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({"script": script, "args": []}))
    }

    fn element(&self, selector: &str) -> String {
        let body = json!({"using": "css selector", "value": selector});
        let element = self.post("/element", body);
        let id = element[ELEMENT].as_str().expect("an element");
        format!("/element/{id}")
    }

    /// Types this into the element, key by key.
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("{element}/value"), json!({"text": text}));
    }

    /// Presses a key, wherever the focus is.
    pub(crate) fn press(&self, key: &str) {
        let press = ["keyDown", "keyUp"].map(|half| json!({"type": half, "value": key}));
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": press});
        self.post("/actions", json!({"actions": [keyboard]}));
    }

    pub(crate) fn clear(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("{element}/clear"), json!({}));
    }

    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("{element}/click"), json!({}));
    }

    /// Role and name of the element, as a screen reader gets them.
    pub(crate) fn role_and_name(&self, selector: &str) -> (String, String) {
        let element = self.element(selector);
        let of = |what: &str| self.get(&format!("{element}/{what}"));
        let text = |value: Value| value.as_str().expect("a text").to_owned();
        (text(of("computedrole")), text(of("computedlabel")))
    }

    /// What the console has got since the last call.
    pub(crate) fn console(&self) -> Vec<Value> {
        let log = self.post("/se/log", json!({"type": "browser"}));
        log.as_array().expect("a log").clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends Chromium with all its processes; the driver alone would leave them.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn port_of(driver: &mut Child) -> u16 {
    let output = BufReader::new(driver.stdout.take().expect("its output"));
    for line in output.lines().map_while(Result::ok) {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().expect("a port");
        }
    }
    panic!("chromedriver has not started");
}

fn value(command: &str, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut response = response.unwrap_or_else(|error| panic!("{command}: {error}"));
    let text = response.body_mut().read_to_string().expect("an answer");
    let mut json: Value = serde_json::from_str(&text).expect("JSON");
    assert!(response.status().is_success(), "{command}: {json}");
    json["value"].take()
}
