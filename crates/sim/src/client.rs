//! The operator: asks for one thing at a time of each workload, asks again until it is answered, and knows
//! what was acknowledged. Owns nothing of the fleet; what is answered with a refusal that lasts is a bug.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hostler_control::fleet::{ApplyOptions, Expect, State, Verb};
use hostler_model::{Admission, Code, Desired};

use crate::report::Violation;
use crate::scenario::{NODES, WORKLOADS, Wish};
use crate::server::{Answer, Request, Server};

/// Wait before a refused request is made again.
const AGAIN: Duration = Duration::from_millis(500);

/// The number of requests whose answer nobody waits for.
const UNHEARD: u64 = 0;

/// What was asked and acknowledged so far.
pub(crate) struct Client {
    workloads: Vec<Account>,
    nodes: Vec<Door>,
    numbers: u64,
}

/// Whether a node is to take copies, and when that may be asked again.
#[derive(Default, Clone, Copy)]
struct Door {
    is_closed: bool,
    due: Duration,
}

/// One workload.
#[derive(Default)]
struct Account {
    /// What the fleet has acknowledged; none if the workload is to be absent.
    acknowledged: Option<Wanted>,
    wishes: VecDeque<Wish>,
    asked: Option<Asked>,
}

/// What a workload is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) count: u32,
    version: u64,
    pub(crate) desired: Desired,
}

/// The request that is to be answered next.
struct Asked {
    number: u64,
    /// What will hold once it is acknowledged; it may hold already.
    then: Option<Wanted>,
    /// When to make it; none while it is under way.
    due: Option<Duration>,
}

impl Client {
    pub(crate) fn new() -> Self {
        let workloads = WORKLOADS.iter().map(|_| Account::default()).collect();
        Self {
            workloads,
            nodes: vec![Door::default(); NODES.len()],
            numbers: 0,
        }
    }

    /// The operator wants something more.
    pub(crate) fn wish(&mut self, wish: Wish) {
        self.workloads[wish.workload()].wishes.push_back(wish);
    }

    /// The operator wants the node to be emptied, or to be filled again.
    pub(crate) fn drain(&mut self, node: usize, is_closed: bool) {
        self.nodes[node] = Door {
            is_closed,
            due: Duration::ZERO,
        };
    }

    /// Every copy of the workload is to be restarted. What comes of it is not waited for. A workload that is
    /// stopped would be started by it, so only one that is to run is restarted.
    pub(crate) fn restart(&self, server: &Server, workload: usize) {
        let account = &self.workloads[workload];
        let runs = |wanted: Wanted| wanted.desired == Desired::Running;
        let (None, true) = (&account.asked, account.acknowledged.is_some_and(runs)) else {
            return;
        };
        let Some(control) = server.control() else {
            return;
        };
        let name = WORKLOADS[workload].name;
        let found = control
            .view()
            .workload_by_name(name)
            .map(|workload| workload.id);
        if let Some(workload) = found {
            let verb = Verb::Restart {
                workload,
                expect: Expect::Any,
            };
            server.ask(Request {
                number: UNHEARD,
                verb,
            });
        }
    }

    /// Whether everything was acknowledged.
    pub(crate) fn is_done(&self) -> bool {
        let is_done = |account: &Account| account.wishes.is_empty() && account.asked.is_none();
        self.workloads.iter().all(is_done)
    }

    /// What each workload is to be, by name.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = (&'static str, Option<Wanted>)> {
        let named = WORKLOADS.iter().zip(&self.workloads);
        named.map(|(template, account)| (template.name, account.acknowledged))
    }

    /// The server has crashed: what was under way is asked again.
    pub(crate) fn server_crashed(&mut self, now: Duration) {
        for asked in self
            .workloads
            .iter_mut()
            .filter_map(|account| account.asked.as_mut())
        {
            asked.due.get_or_insert(now);
        }
    }

    /// Makes the requests that are due, if there is a server to ask.
    pub(crate) fn ask(&mut self, server: &Server, now: Duration) {
        let Some(control) = server.control() else {
            return;
        };
        self.ask_doors(&control.view(), server, now);
        for index in 0..self.workloads.len() {
            let account = &mut self.workloads[index];
            account.take_next(&mut self.numbers, now);
            let Some(asked) = account
                .asked
                .as_mut()
                .filter(|asked| asked.due.is_some_and(|due| due <= now))
            else {
                continue;
            };
            match verb(&control.view(), index, account.wishes.front()) {
                Some(verb) => {
                    asked.due = None;
                    server.ask(Request {
                        number: asked.number,
                        verb,
                    });
                }
                // It is gone already: an earlier request, not answered, has done it.
                None => account.acknowledge(),
            }
        }
    }

    /// A drain has no answer to wait for: the view shows what came of it.
    fn ask_doors(&mut self, view: &State, server: &Server, now: Duration) {
        for (door, name) in self.nodes.iter_mut().zip(NODES) {
            let Some(node) = view.node_by_name(name).filter(|_| door.due <= now) else {
                continue;
            };
            let is_open = node.admission == Admission::Open;
            let verb = match (door.is_closed, is_open) {
                (true, true) => Verb::Drain {
                    node: node.id,
                    expect: Expect::Any,
                },
                (false, false) => Verb::Undrain {
                    node: node.id,
                    expect: Expect::Any,
                },
                _ => continue,
            };
            door.due = now + AGAIN;
            server.ask(Request {
                number: UNHEARD,
                verb,
            });
        }
    }

    /// Takes the answers in; each is a line for the trace.
    pub(crate) fn hear(
        &mut self,
        answers: Vec<Answer>,
        now: Duration,
    ) -> Result<Vec<String>, Violation> {
        let mut lines = Vec::new();
        for Answer { number, result } in answers {
            let waiting = self
                .workloads
                .iter_mut()
                .zip(&WORKLOADS)
                .find(|(account, _)| {
                    account
                        .asked
                        .as_ref()
                        .is_some_and(|asked| asked.number == number)
                });
            let Some((account, template)) = waiting else {
                continue;
            };
            match result {
                Ok(reply) => {
                    account.acknowledge();
                    lines.push(format!("acknowledged: {}: {reply:?}", template.name));
                }
                Err(refusal) if is_passing(refusal.code) => {
                    lines.push(format!("refused: {}: {}", template.name, refusal.code));
                    if let Some(asked) = &mut account.asked {
                        asked.due = Some(now + AGAIN);
                    }
                }
                Err(refusal) => {
                    return Err(Violation::Failed(format!("{}: {refusal}", template.name)));
                }
            }
        }
        Ok(lines)
    }

    /// Whether the view shows all that was acknowledged.
    pub(crate) fn check(&self, view: &State) -> Result<(), Violation> {
        for (template, account) in WORKLOADS.iter().zip(&self.workloads) {
            let shown = shown(view, template.name);
            // What was asked and not answered may have happened.
            let may_be = account.asked.as_ref().map(|asked| asked.then);
            if shown != account.acknowledged && Some(shown) != may_be {
                return Err(Violation::Lost(format!(
                    "{} is to be {:?}, and is {shown:?}",
                    template.name, account.acknowledged
                )));
            }
        }
        Ok(())
    }
}

impl Account {
    /// Begins with the next wish, if it changes anything.
    fn take_next(&mut self, numbers: &mut u64, now: Duration) {
        while self.asked.is_none()
            && let Some(wish) = self.wishes.front()
        {
            let then = after(self.acknowledged, wish);
            if then == self.acknowledged {
                self.wishes.pop_front();
                continue;
            }
            *numbers += 1;
            self.asked = Some(Asked {
                number: *numbers,
                then,
                due: Some(now),
            });
        }
    }

    fn acknowledge(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.acknowledged = asked.then;
            self.wishes.pop_front();
        }
    }
}

/// What will hold once the wish is fulfilled.
fn after(before: Option<Wanted>, wish: &Wish) -> Option<Wanted> {
    match *wish {
        Wish::Apply { count, version, .. } => Some(Wanted {
            count,
            version,
            desired: before.map_or(Desired::Running, |before| before.desired),
        }),
        Wish::Desire {
            desired: Desired::Deleted,
            ..
        } => None,
        Wish::Desire { desired, .. } => before.map(|before| Wanted { desired, ..before }),
    }
}

/// The request for a wish; none if there is nothing to ask about.
fn verb(view: &State, index: usize, wish: Option<&Wish>) -> Option<Verb> {
    let template = &WORKLOADS[index];
    let workload = view
        .workload_by_name(template.name)
        .map(|workload| workload.id);
    match *wish? {
        Wish::Apply { count, version, .. } => Some(Verb::Apply {
            specs: vec![Arc::new(template.spec(count, version))],
            options: ApplyOptions::default(),
        }),
        Wish::Desire {
            desired: Desired::Deleted,
            ..
        } => Some(Verb::Delete {
            workload: workload?,
            expect: Expect::Any,
        }),
        Wish::Desire { desired, .. } => Some(Verb::SetDesired {
            workload: workload?,
            desired,
            expect: Expect::Any,
        }),
    }
}

/// What the view shows of the workload.
fn shown(view: &State, name: &str) -> Option<Wanted> {
    let workload = view.workload_by_name(name)?;
    if workload.desired == Desired::Deleted {
        return None;
    }
    let version = workload.spec.env.values().next();
    Some(Wanted {
        count: workload.spec.count,
        version: version
            .and_then(|version| version.parse().ok())
            .unwrap_or_default(),
        desired: workload.desired,
    })
}

/// Whether asking again may help.
const fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::WorkloadDeleting | Code::StoreUnavailable | Code::Overloaded | Code::WorkloadNotFound
    )
}

#[cfg(test)]
mod tests {
    use hostler_control::fleet::Reply;
    use hostler_model::Refusal;

    use super::*;

    /// A client whose first request is under way.
    fn asking() -> Client {
        let mut client = Client::new();
        client.wish(Wish::Apply {
            workload: 0,
            count: 2,
            version: 1,
        });
        client.workloads[0].take_next(&mut client.numbers, Duration::ZERO);
        client
    }

    fn answered(result: Result<Reply, Refusal>) -> Vec<Answer> {
        vec![Answer { number: 1, result }]
    }

    #[test]
    fn what_was_acknowledged_and_is_not_there_is_lost() {
        let mut client = asking();
        assert_eq!(
            client.check(&State::default()),
            Ok(()),
            "nobody was answered"
        );
        client
            .hear(answered(Ok(Reply::Done)), Duration::ZERO)
            .unwrap();
        let found = client.check(&State::default());
        assert!(matches!(found, Err(Violation::Lost(_))));
        assert!(client.is_done());
    }

    #[test]
    fn a_refusal_that_passes_is_asked_again_and_any_other_is_a_failure() {
        let refusal = |code| Err(Refusal::new(code, "no", "wait"));
        let mut client = asking();
        client
            .hear(answered(refusal(Code::Overloaded)), Duration::ZERO)
            .unwrap();
        assert!(!client.is_done());
        let found = client.hear(answered(refusal(Code::SpecInvalid)), Duration::ZERO);
        assert!(matches!(found, Err(Violation::Failed(_))));
    }
}
