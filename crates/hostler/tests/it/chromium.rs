//! A chromium that a test looks through, driven as WebDriver has it (W3C): requests to `chromedriver` on loopback. It has
//! a profile of its own, and believes the keys that it is told beside the machine's.
//!
//! A browser breaks off what it has asked when the addresses of its machine change (ERR_NETWORK_CHANGED), as they do
//! while tests beside this one make networks. So who looks through it goes to [`a_network_apart`] first, where it finds
//! nothing but this machine, either.

use std::path::Path;
use std::process::Command;

use hostler_kit::trust::Anchors;
use reqwest::Method;
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::program::{Ended, Running, client, comes, eventually, is_alive, runtime, signal};

/// No sandbox, because a browser of root's has none; and nothing that it would do by itself on a person's machine.
const FLAGS: [&str; 8] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// Generous: a busy machine is no failure.
const PATIENCE_MILLIS: u32 = 300_000;

/// From here on this thread, and all that it starts, has a network of its own, which is loopback alone. Needs root.
#[expect(
    deprecated,
    reason = "it is unsound for tables of file handles alone, which are not given up here"
)]
pub(crate) fn a_network_apart() {
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
    let told = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .output();
    Ended::from(told.unwrap()).with_code(0);
}

/// How the driver is spoken to.
struct Line {
    runtime: Runtime,
    http: reqwest::Client,
    driver: String,
}

/// One window of one browser, which ends with it.
pub(crate) struct Chromium {
    line: Line,
    session: String,
    browser: u32,
    _driver: Running,
}

impl Chromium {
    /// Below that directory. The keys are believed whatever names they speak for: the hashes of them, in base64.
    pub(crate) fn start(home: &Path, keys: &[String]) -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("HOME", home);
        let mut driver = Running::start(&mut command);
        let line = driver.line("started successfully on port");
        let port = line.rsplit(' ').next().unwrap().trim_end_matches('.');
        let line = Line {
            runtime: runtime(),
            http: client(&Anchors::Machine),
            driver: format!("http://127.0.0.1:{port}"),
        };
        let mut flags = FLAGS.map(str::to_owned).to_vec();
        let profile = home.join("profile");
        flags.push(format!("--user-data-dir={}", profile.display()));
        flags.push(format!(
            "--ignore-certificate-errors-spki-list={}",
            keys.join(",")
        ));
        let patience = json!({"script": PATIENCE_MILLIS, "pageLoad": PATIENCE_MILLIS});
        let wanted = json!({"goog:chromeOptions": {"args": flags}, "timeouts": patience});
        let wanted = json!({"capabilities": {"alwaysMatch": wanted}});
        let begun = line.ask(Method::POST, "/session", &wanted).unwrap();
        let browser = begun["capabilities"]["goog:processID"].as_u64().unwrap();
        Self {
            line,
            session: begun["sessionId"].as_str().unwrap().to_owned(),
            browser: browser.try_into().unwrap(),
            _driver: driver,
        }
    }

    /// Goes there, and waits until it is loaded.
    pub(crate) fn open(&self, url: &str) {
        self.tell("url", &json!({"url": url}));
    }

    pub(crate) fn back(&self) {
        self.tell("back", &json!({}));
    }

    /// Types into what the selector finds, as a person does.
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        self.tell_element(selector, "value", &json!({"text": text}));
    }

    pub(crate) fn click(&self, selector: &str) {
        self.tell_element(selector, "click", &json!({}));
    }

    /// What the script of the page would get: the value, once it is there.
    pub(crate) fn script(&self, script: &str, arguments: &[Value]) -> Value {
        let script = json!({"script": script, "args": arguments});
        self.tell("execute/sync", &script)
    }

    /// Waits until the page at that address shows this to whoever reads it.
    pub(crate) fn until(&self, url: &str, part: &str) {
        let script =
            json!({"script": "return [location.href, document.body.innerText]", "args": []});
        let mut shown = Value::Null;
        let has_come = comes(|| {
            // While a page gives way to the next there is none.
            shown = self
                .request(Method::POST, "execute/sync", &script)
                .unwrap_or_default();
            let is_so = |at: usize, is: &dyn Fn(&str) -> bool| shown[at].as_str().is_some_and(is);
            is_so(0, &|it| it == url) && is_so(1, &|it| it.contains(part))
        });
        assert!(has_come, "{url} never showed {part}, but {shown}");
    }

    /// Every cookie of this page, also those that it does not see itself.
    pub(crate) fn cookies(&self) -> Vec<Value> {
        let cookies = self.request(Method::GET, "cookie", &Value::Null);
        let cookies = cookies.unwrap();
        cookies.as_array().cloned().unwrap()
    }

    pub(crate) fn put_cookie(&self, cookie: &Value) {
        self.tell("cookie", &json!({"cookie": cookie}));
    }

    fn tell_element(&self, selector: &str, what: &str, how: &Value) {
        let sought = json!({"using": "css selector", "value": selector});
        let found = self.tell("element", &sought);
        let element = found.as_object().unwrap().values().next().unwrap();
        self.tell(
            &format!("element/{}/{what}", element.as_str().unwrap()),
            how,
        );
    }

    #[track_caller]
    fn tell(&self, what: &str, how: &Value) -> Value {
        let told = self.request(Method::POST, what, how);
        told.unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    fn request(&self, method: Method, what: &str, how: &Value) -> Result<Value, Value> {
        let path = format!("/session/{}/{what}", self.session);
        self.line.ask(method, &path, how)
    }
}

impl Line {
    /// The value that is answered, or the error.
    fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, Value> {
        let request = self
            .http
            .request(method.clone(), format!("{}{path}", self.driver));
        let request = match method {
            Method::GET => request,
            _ => request.json(body),
        };
        let (is_done, mut answer) = self.runtime.block_on(async {
            let answer = request.send().await.unwrap();
            let is_done = answer.status().is_success();
            (is_done, answer.json::<Value>().await.unwrap())
        });
        let value = answer["value"].take();
        if is_done { Ok(value) } else { Err(value) }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The driver would leave it behind.
        signal(self.browser, Signal::TERM);
        eventually("the browser ends", || !is_alive(self.browser));
    }
}
