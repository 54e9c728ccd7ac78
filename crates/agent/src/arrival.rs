//! A disk on another machine than before, with a token that may be good or not: what the disk brought is set aside only
//! once the token was taken.
//!
//! ```text
//!   asks, with a key of its own ─┬─ taken, or to be approved ──► a copy: a new node begins, with that key
//!        ▲                       ├─ the token is refused ──────► moved: it goes on as the node that it was
//!        └─ no answer, not now, ─┘
//!           or a person's no
//! ```
//!
//! ```text
//! <data>/joining/agent/   what is to be the agent's folder if the machine is let in
//! ```
//!
//! A person's no, as when the node that the machine was let in as was removed, is none to the token: a machine that goes on
//! as the original then would take its place.
//!
//! Until it is settled nothing of the disk is used. An answer that was not heard is asked for again with the same key, so
//! that no machine becomes two nodes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hostler_kit::{Backoff, Clock, Entropy};
use hostler_model::Code;
use hostler_wire::session::v1::Refused;

use crate::ledger::{Ledger, files};
use crate::membership::{self, About, Membership, NoMembership};
use crate::origin::{self, Birthplace, Known};
use crate::{AgentConfig, Dial, Machine, StartError, uplink};

/// A data directory of its own, for as long as it is asked.
const JOINING: &str = "joining";
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A machine that found another's disk in itself. Nobody else uses the data directory while there is one.
#[derive(Debug)]
pub struct Elsewhere {
    data_dir: PathBuf,
    here: Known,
    _lock: File,
}

/// What it is asked with.
pub struct Tools<'a> {
    pub clock: &'a Arc<dyn Clock>,
    pub entropy: &'a Arc<dyn Entropy>,
    pub dial: &'a Arc<dyn Dial>,
    pub machine: &'a dyn Machine,
    /// Says in one line how it stands, to whoever looks after the agent.
    pub say: &'a (dyn Fn(&str) + Send + Sync),
}

/// What became of the token.
enum Answer {
    Taken,
    Refused(Refused),
}

impl Elsewhere {
    pub(crate) fn new(data_dir: &Path, here: Known, lock: File) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            here,
            _lock: lock,
        }
    }

    /// Asks to be let in until there is an answer. May be dropped at any moment: the next start asks again.
    ///
    /// # Errors
    /// A file or folder cannot be used, or the server's address is none.
    pub async fn settle(
        self,
        config: &AgentConfig,
        tools: Tools<'_>,
    ) -> Result<Birthplace, StartError> {
        tracing::warn!(
            "this disk was made on another machine; this one asks to be let in as a node of its own"
        );
        let settled = match self.ask(config, tools).await? {
            Answer::Taken => origin::begin_anew(&self.data_dir, self.here),
            Answer::Refused(Refused {
                code,
                sentence,
                advice,
            }) => {
                tracing::warn!(
                    code,
                    sentence,
                    advice,
                    "the token was refused, so this disk is taken for one that has moved: the agent goes on as the node \
                     that it was"
                );
                forget(&self.data_dir).and_then(|()| origin::go_on(&self.data_dir, self.here))
            }
        };
        settled.map_err(|source| origin::unusable(&self.data_dir, source))
    }

    async fn ask(&self, config: &AgentConfig, tools: Tools<'_>) -> Result<Answer, StartError> {
        let joining = self.data_dir.join(JOINING);
        let prepared = self.prepare(&joining);
        prepared.map_err(|source| origin::unusable(&joining, source))?;
        let ledger = Ledger::open(&joining)?;
        let hostname = tools.machine.facts().hostname;
        let names = (config.name.as_deref(), hostname.as_str());
        let identity = ledger.identity(names, tools.entropy.as_ref())?;
        let server = uplink::address(config)?;
        let told = (config.invitation.clone(), config.anchors.clone());
        let seams = (Arc::clone(tools.clock), Arc::clone(tools.entropy));
        let membership = Membership::open(&joining, told, seams)?;
        let about = About {
            identity: &identity.identity,
            name: &identity.name,
            labels: &config.labels,
            copied_from: origin::whose(&self.data_dir),
        };
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut told = String::new();
        loop {
            let Err(problem) = membership.ensure((&server, tools.dial), &about).await else {
                return Ok(Answer::Taken);
            };
            let mut wait = None;
            if let NoMembership::Refused(refused) = &problem {
                match code_of(refused) {
                    Some(Code::NodePending) => return Ok(Answer::Taken),
                    Some(Code::JoinTokenInvalid | Code::JoinTokenSpent) => {
                        return Ok(Answer::Refused(refused.clone()));
                    }
                    _ => wait = uplink::refusal_wait(&refused.code),
                }
            }
            let text = problem.to_string();
            if told != text {
                (tools.say)(&format!("asks to be let in as a node of its own: {text}"));
                told = text;
                self.tell(&problem);
            }
            let wait = wait.unwrap_or_else(|| backoff.next(tools.entropy.as_ref()));
            tokio::time::sleep(wait).await;
        }
    }

    /// A person may have to act.
    fn tell(&self, problem: &NoMembership) {
        let refused = match problem {
            NoMembership::Silent(problem) => {
                tracing::warn!(problem, "there is no answer to that yet; asking again");
                return;
            }
            NoMembership::Refused(refused) => refused,
        };
        let advice = match code_of(refused) {
            Some(Code::NodeGone) => format!(
                "if this machine's own node was removed and it is to ask anew, stop the agent, remove {} and give it a \
                 token that is good",
                self.data_dir.join(JOINING).display()
            ),
            _ => refused.advice.clone(),
        };
        tracing::error!(
            code = refused.code,
            sentence = refused.sentence,
            advice,
            "not let in as a node of its own; asking again"
        );
    }

    /// What an earlier start has begun goes on, unless it came with a copy, too.
    fn prepare(&self, joining: &Path) -> io::Result<()> {
        let dir = joining.join("agent");
        if !is_of(&dir, &self.here) {
            forget(&self.data_dir)?;
            files::make_dir(&dir)?;
            origin::keep(&dir.join("machine.json"), &self.here)?;
        }
        membership::hand_down(&self.data_dir.join("agent"), &dir)
    }
}

/// What was made for the node to be goes to its place; an empty folder where nobody was asked, or by another machine.
pub(crate) fn hand_over(data_dir: &Path, place: &Path, here: &Known) -> io::Result<()> {
    let made = data_dir.join(JOINING).join("agent");
    if !is_of(&made, here) {
        forget(data_dir)?;
    }
    match fs::rename(made, place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => files::make_dir(place),
        moved => moved,
    }
}

/// Nothing more is asked.
pub(crate) fn forget(data_dir: &Path) -> io::Result<()> {
    remove(&data_dir.join(JOINING))
}

/// All of a folder, if it is there.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether what lies there was begun by this machine, and not by one that the disk is a copy of.
pub(crate) fn is_of(dir: &Path, here: &Known) -> bool {
    let known = files::read::<Known>(&dir.join("machine.json"));
    let known = known.ok().flatten();
    known.is_some_and(|known| !known.marks.is_other_than(&here.marks))
}

fn code_of(refused: &Refused) -> Option<Code> {
    let mut codes = Code::ALL.iter();
    codes.find(|code| code.as_str() == refused.code).copied()
}
