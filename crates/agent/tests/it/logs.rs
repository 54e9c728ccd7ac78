//! Logs on request, over the second connection.

use hostler_model::spec::RestartPolicy;
use hostler_wire::session::v1::bulk_frame::Frame;

use crate::control::{State, unit};
use crate::node::{World, program};

pub(crate) fn frames(state: &State) -> Vec<&Frame> {
    state
        .bulk
        .iter()
        .filter_map(|frame| frame.frame.as_ref())
        .collect()
}

fn texts(state: &State) -> Vec<String> {
    let lines = frames(state).into_iter().filter_map(|frame| match frame {
        Frame::LogLines(lines) => Some(&lines.lines),
        _ => None,
    });
    lines.flatten().map(|line| line.text.clone()).collect()
}

pub(crate) fn end(state: &State) -> Option<String> {
    frames(state).into_iter().find_map(|frame| match frame {
        Frame::End(end) => Some(end.code.clone()),
        _ => None,
    })
}

#[tokio::test(start_paused = true)]
async fn a_log_comes_with_its_ticket_its_lines_and_an_end() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(
        unit(1, 1),
        &program("web", "print one two three", RestartPolicy::Always),
    );
    world.control.until_shown(unit(1, 1), "running").await;
    let dials = world.network.dials();
    world.control.ask_logs(unit(1, 1), false);
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    let state = world.control.state();
    assert!(matches!(frames(&state)[0], Frame::Ticket(ticket) if ticket == "ticket-1"));
    assert_eq!(texts(&state), ["one", "two", "three"]);
    assert_eq!(end(&state).unwrap(), "");
    assert_eq!(world.network.dials() - dials, 1, "a connection of its own");
}

#[tokio::test(start_paused = true)]
async fn a_followed_log_goes_on_until_the_unit_is_removed() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.run(
        unit(1, 1),
        &program("web", "print one", RestartPolicy::Always),
    );
    world.control.until_shown(unit(1, 1), "running").await;
    world.control.ask_logs(unit(1, 1), true);
    world
        .control
        .until("one", |state| texts(state) == ["one"])
        .await;
    world.machine.write_line(unit(1, 1), "two");
    world
        .control
        .until("two", |state| texts(state) == ["one", "two"])
        .await;
    world.control.stop(unit(1, 1), "stopped");
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_log_larger_than_a_message_goes_in_several() {
    let world = World::new();
    let _agent = world.start().await;
    world
        .control
        .run(unit(1, 1), &program("web", "serve", RestartPolicy::Always));
    world.control.until_shown(unit(1, 1), "running").await;
    for _ in 0..40 {
        world.machine.write_line(unit(1, 1), &"x".repeat(16 * 1024));
    }
    world.control.ask_logs(unit(1, 1), false);
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    let state = world.control.state();
    assert_eq!(texts(&state).len(), 40);
    assert!(frames(&state).len() > 10, "{}", frames(&state).len());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_there_ends_with_its_reason() {
    let world = World::new();
    let _agent = world.start().await;
    world.control.until("a beat", |state| state.beats > 0).await;
    world.control.ask_logs(unit(9, 1), false);
    world
        .control
        .until("the end", |state| end(state).is_some())
        .await;
    assert_eq!(end(&world.control.state()).unwrap(), "log-not-found");
}
