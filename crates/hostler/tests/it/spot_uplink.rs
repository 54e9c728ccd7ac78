//! Our agent of the spot contract at a server of ours: what both keep when the other is gone, comes back, or comes
//! back with nothing, and when connections break off half-way.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::fleet::Fleet;
use crate::foreign::called;
use crate::program::{Running, eventually};
use crate::spot_nodes::ask;

/// Where a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The server gets half of the request.
    Asking,
    /// The server has answered, and the agent does not hear it.
    Answering,
}

/// The next request whose text has these words, if one is to break.
type Next = Arc<Mutex<Option<(&'static str, Cut)>>>;

/// The way to a server. It breaks once where it is told to.
struct Way {
    addr: SocketAddr,
    next: Next,
}

impl Way {
    fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let next = Next::default();
        let told = Arc::clone(&next);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (told, server) = (Arc::clone(&told), server.clone());
                // A side that is gone ends the connection, which is all that a way has to do.
                std::thread::spawn(move || carry(stream, &server, &told));
            }
        });
        Self { addr, next }
    }

    fn will_break(&self, words: &'static str, cut: Cut) {
        *self.next.lock().unwrap() = Some((words, cut));
    }

    fn until_broken(&self) {
        eventually("it breaks", || self.next.lock().unwrap().is_none());
    }
}

fn carry(mut agent: TcpStream, server: &str, next: &Next) -> Option<()> {
    let request = request(&mut agent)?;
    let text = String::from_utf8_lossy(&request);
    let is_meant = |next: &mut (&'static str, Cut)| text.contains(next.0);
    let cut = next.lock().unwrap().take_if(is_meant).map(|(_, cut)| cut);
    let mut server = TcpStream::connect(server).ok()?;
    if cut == Some(Cut::Asking) {
        server.write_all(&request[..request.len() - 5]).ok()?;
        return server.shutdown(Shutdown::Both).ok();
    }
    server.write_all(&request).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    if cut.is_none() {
        agent.write_all(&answer).ok()?;
    }
    Some(())
}

/// A whole request.
fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let mut more = [0; 4096];
        let count = stream.read(&mut more).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&more[..count]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        if bytes.len() >= end + 4 + length {
            return Some(bytes);
        }
    }
}

/// A client and the home of its agent.
struct Client {
    id: String,
    token: String,
    root: PathBuf,
}

impl Client {
    fn open(fleet: &Fleet) -> Self {
        let body = json!({"name": "acme"});
        let opened = ask(fleet, "POST /api/admin/clients/create", "", &body);
        let text = |key: &str| opened["client"][key].as_str().unwrap().to_owned();
        let root = fleet.path().join("spot");
        std::fs::create_dir_all(root.join("config")).unwrap();
        let (id, token) = (text("id"), text("token"));
        Self { id, token, root }
    }

    /// Starts its agent, as an installer would have set it up.
    fn agent(&self, server: &str, logical: &str) -> Running {
        let conf = format!(
            "SERVER_URL={server}\nCLIENT_TOKEN={}\nLOGICAL_AGENT_ID={logical}\nINSTANCE_ID=i-1\n\
             INSTANCE_TYPE=t3.medium\nREGION=ap-south-1\nAZ=ap-south-1a\nCURRENT_MODE=spot\n",
            self.token
        );
        std::fs::write(self.root.join("config/agent.conf"), conf).unwrap();
        let mut agent = called("spot-agent", &self.root);
        agent.args(["start", "--root"]).arg(&self.root);
        for interval in ["HEARTBEAT_INTERVAL", "COMMANDS_INTERVAL", "CONFIG_INTERVAL"] {
            agent.env(interval, "1");
        }
        Running::start(agent.env("HOSTLER_LOG_LEVEL", "debug"))
    }

    /// The ids of its agents with their states.
    fn agents(&self, fleet: &Fleet) -> Vec<(String, String)> {
        let path = format!("GET /api/client/{}/agents", self.id);
        let rows = ask(fleet, &path, "", &Value::Null);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| (text(&row["id"]), text(&row["status"])))
            .collect()
    }

    fn forget_id(&self) {
        std::fs::remove_file(self.root.join("agent_id.txt")).unwrap();
    }
}

fn id_in(root: &Path) -> String {
    let path = root.join("agent_id.txt");
    eventually("the id is written", || {
        std::fs::read_to_string(&path).is_ok_and(|id| id.ends_with('\n'))
    });
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

fn times(agent: &Running, part: &str) -> usize {
    agent.said().matches(part).count()
}

fn online(id: &str) -> Vec<(String, String)> {
    vec![(id.to_owned(), "online".to_owned())]
}

#[test]
fn an_agent_keeps_its_id_over_restarts_of_both_and_a_new_word_is_a_new_agent() {
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let client = Client::open(&fleet);
    let mut agent = client.agent(&fleet.addr(), "agent-box-1");
    let id = id_in(&client.root);
    agent.line("Heartbeat sent successfully");
    fleet.kill_server();
    agent.line("Heartbeat failed: ");
    agent.line("Command polling failed: ");
    fleet.start_server();
    eventually("it is online again", || {
        client.agents(&fleet) == online(&id)
    });
    let order = format!("POST /api/agents/{id}/issue-switch-command");
    let order = ask(
        &fleet,
        &order,
        &client.token,
        &json!({"target_mode": "ondemand"}),
    );
    let order = order["command_id"].as_str().unwrap();
    agent.line(&format!("Executing command {order}: ondemand"));
    assert_eq!(times(&agent, "Registering agent"), 1);
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(client.agents(&fleet)[0].1, "offline");

    // Installed anew under the same word it is the same agent, under another it is not.
    client.forget_id();
    let mut again = client.agent(&fleet.addr(), "agent-box-1");
    assert_eq!(id_in(&client.root), id);
    eventually("it is online", || client.agents(&fleet) == online(&id));
    assert_eq!(again.terminate(), Some(0));
    client.forget_id();
    let mut other = client.agent(&fleet.addr(), "agent-box-2");
    let new = id_in(&client.root);
    assert_ne!(new, id);
    eventually("it is online beside the old one", || {
        client.agents(&fleet).contains(&online(&new)[0])
    });
    assert_eq!(client.agents(&fleet).len(), 2);
    assert_eq!(other.terminate(), Some(0));
}

#[test]
fn a_server_that_comes_back_with_nothing_gets_no_agent_by_itself() {
    let mut fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let client = Client::open(&fleet);
    let mut agent = client.agent(&fleet.addr(), "agent-box-1");
    let id = id_in(&client.root);
    agent.line("Heartbeat sent successfully");
    fleet.kill_server();
    std::fs::remove_dir_all(fleet.server_dir()).unwrap();
    fleet.start_server();
    agent.line("Heartbeat failed: the answer was 401 Unauthorized: Invalid client token");
    assert_eq!(agent.terminate(), Some(0), "nothing of it breaks the agent");

    let client = Client::open(&fleet);
    let mut agent = client.agent(&fleet.addr(), "agent-box-1");
    agent.line(&format!("The server does not know agent {id}"));
    assert_eq!(times(&agent, "Registering agent"), 0);
    assert_eq!(client.agents(&fleet), []);
    assert_eq!(agent.terminate(), Some(0));
    client.forget_id();
    let mut agent = client.agent(&fleet.addr(), "agent-box-1");
    let new = id_in(&client.root);
    assert_ne!(new, id);
    eventually("it is online", || client.agents(&fleet) == online(&new));

    // Deleted, it goes on asking and stays deleted.
    let delete = format!("DELETE /api/client/agents/{new}");
    ask(&fleet, &delete, "", &json!({}));
    agent.line(&format!("The server does not know agent {new}"));
    let failed = times(&agent, "Heartbeat failed: ");
    eventually("it goes on", || {
        times(&agent, "Heartbeat failed: ") > failed + 1
    });
    assert_eq!(client.agents(&fleet), []);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn what_breaks_off_is_done_once_and_told_in_the_end() {
    let fleet = Fleet::without_agent("/nonexistent/docker.sock");
    let client = Client::open(&fleet);
    let way = Way::to(fleet.addr().replace("http://", ""));
    let mut agent = client.agent(&format!("http://{}", way.addr), "agent-box-1");
    let id = id_in(&client.root);
    for cut in [Cut::Asking, Cut::Answering] {
        let (sent, failed) = ("Heartbeat sent successfully", "Heartbeat failed: ");
        let before = times(&agent, failed);
        way.will_break("/heartbeat", cut);
        way.until_broken();
        eventually("it is told", || times(&agent, failed) > before);
        let before = times(&agent, sent);
        eventually("it goes on", || times(&agent, sent) > before);
        assert_eq!(client.agents(&fleet), online(&id));
    }
    for (number, cut) in [(1, Cut::Asking), (2, Cut::Answering)] {
        let failed = "Command polling failed: ";
        let before = times(&agent, failed);
        let order = format!("POST /api/agents/{id}/issue-switch-command");
        way.will_break("/executed", cut);
        let body = json!({"target_mode": "ondemand"});
        let order = ask(&fleet, &order, &client.token, &body);
        way.until_broken();
        eventually("it is told", || times(&agent, failed) > before);
        let pending = format!("GET /api/agents/{id}/pending-commands");
        eventually("nothing waits", || {
            ask(&fleet, &pending, &client.token, &Value::Null) == json!([])
        });
        let order = order["command_id"].as_str().unwrap();
        let executing = format!("Executing command {order}");
        assert_eq!(times(&agent, &executing), 1, "{cut:?}");
        let figures = format!("GET /api/agents/{id}/statistics");
        let figures = ask(&fleet, &figures, &client.token, &Value::Null);
        assert_eq!(figures["failedSwitches"], number);
        let events = fleet.run(&["events"]).with_code(0).stdout;
        let told = events.matches("could not switch to an on-demand machine");
        assert_eq!(told.count(), number, "{events}");
    }
    assert_eq!(agent.terminate(), Some(0));
}
