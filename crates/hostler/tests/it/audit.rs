//! `hostler audit`: who did what, as an admin asks for it.

use crate::guarded::Guarded;
use crate::program::eventually;

#[test]
fn an_admin_asks_who_did_what_and_nobody_else_is_told() {
    let fleet = Guarded::start();
    let issued = fleet.admin(&["token", "issue", "guest", "--role", "viewer"]);
    let guest = issued.with_code(0).stdout.trim().to_owned();
    let refused = fleet.bearer(&guest, &["audit"]).with_code(1);
    assert!(
        refused.stderr.contains("code: forbidden"),
        "{}",
        refused.stderr
    );
    let told = |words: &[&str]| fleet.admin(&[&["audit"], words].concat()).with_code(0);

    let shown = told(&["--actor", "guest"]).stdout;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    let head: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(head, ["AT", "ACTOR", "WHAT", "THING", "OUTCOME"]);
    let row: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(
        row[1..],
        [
            "guest",
            "GET",
            "/api/v1/audit",
            "-",
            "refused:",
            "forbidden"
        ]
    );
    let wide = told(&["--outcome", "refused", "-o", "wide", "--since", "1h"]).stdout;
    assert!(wide.contains("  api   127.0.0.1:"), "{wide}");

    // As JSON it is what stands in the file, up to the line of this very question.
    let json = told(&["-o", "json"]).stdout;
    let audit = fleet.server_dir().join("audit");
    assert!(json.lines().count() >= 4, "{json}");
    let mut file = String::new();
    eventually("that line is written", || {
        file = std::fs::read_to_string(audit.join("requests-00000001.jsonl")).unwrap();
        let rest = file.strip_prefix(&json);
        rest.is_some_and(|rest| rest.lines().count() == 1)
    });
    assert!(!json.contains(&guest), "{json}");
    let names = told(&["-o", "name", "--actor", "guest"]).stdout;
    assert_eq!(names, "guest\n");
    assert_eq!(told(&["--strangers", "-o", "json"]).stdout, "");

    // What is more than the server tells at once is told all the same, and what cannot be read is counted.
    let line = file.lines().next().unwrap();
    // Whoever joined where nobody looked at names called itself what a terminal would obey.
    let evil = r#"{"at":"2026-01-31T08:00:00Z","actor":{"kind":"node","name":"evil\u001b]0;x\u0007\r\u009b2J"},"door":"session","method":"Join","thing":"\u001b[2J\u009b","outcome":"done"}"#;
    let old = format!("{evil}\n") + &format!("{line}\n").repeat(2_500) + "not a line\n";
    std::fs::write(audit.join("requests-00000000.jsonl"), old).unwrap();
    let many = told(&["--tail", "2300", "-o", "json"]);
    assert_eq!(many.stdout.lines().count(), 2_300);
    assert!(many.stderr.contains("passed over: 1"), "{}", many.stderr);
    assert!(
        many.stderr
            .contains("the last 2300; older lines were not looked at"),
        "{}",
        many.stderr
    );
    let all = told(&["--tail", "1000000", "-o", "json"]);
    assert!(all.stdout.lines().count() > 2_500);
    assert!(!all.stderr.contains("older"), "{}", all.stderr);
    for form in ["table", "wide", "name"] {
        let shown = told(&["--actor", "node", "-o", form]).stdout;
        assert!(shown.contains("node/evil ]0;x   2J"), "{shown:?}");
        let mut obeyed = shown.chars().filter(|it| it.is_control() && *it != '\n');
        assert_eq!(obeyed.next(), None, "{shown:?}");
    }
    fleet.admin(&["audit", "--since", "yesterday"]).with_code(2);
}
