//! The doors of Orchion and of Persys on a server with login: every route of each, in both modes, tried by everybody; and
//! what is told of all the doors.
#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

use std::collections::BTreeSet;

use hostler_doors::Auth;
use hostler_model::{AccessRole, Contract};
use reqwest::Method;

use crate::access::Guarded;
use crate::door_tables::{Asker, MIAAS, ORCHION, PERSYS, SPOT, ask, client, is_in, opened, rows};
use crate::server::Answer;
use crate::spot::{Spot, create};

use AccessRole::{Admin, Viewer};
use Asker::{Client, Key, KeyHeader, Nobody, Node, Role, Scoped, WrongKey};

const KEY: &str = "orchions-key";

async fn walk_orchion(auth: Auth, key: Option<&str>) {
    let doors = opened(&[(Contract::Orchion, auth), (Contract::Spot, auth)]);
    let guarded = Guarded::opening(doors, |parts, _| {
        parts.orchion.api_key = key.map(Into::into);
    })
    .await;
    let mut tokens = Vec::new();
    for role in AccessRole::ALL {
        tokens.push((Role(role), guarded.token(role).await));
    }
    let (id, other) = client(&guarded, &tokens[2].1.clone(), "acme").await;
    let scoped = guarded.token_of("acme", Admin, id.parse().ok()).await;
    tokens.extend([(Client, other), (Scoped(Admin), scoped)]);
    tokens.push((Key, KEY.to_owned()));
    tokens.push((WrongKey, "another".to_owned()));
    let machine = guarded.join("box").await;
    let node = guarded.node_client(&machine);
    let askers = tokens.iter().map(|it| it.0);
    let askers: Vec<Asker> = askers.chain([Nobody, Node, KeyHeader]).collect();
    for row in rows(ORCHION) {
        let is_own_port = row.path.starts_with("/v1/");
        for &asker in askers.iter().filter(|it| !is_own_port || **it != Node) {
            let base = match asker {
                Node => format!("https://{}", guarded.secured),
                _ if is_own_port => format!("http://{}", guarded.own[&Contract::Orchion]),
                _ => format!("http://{}", guarded.server.addr),
            };
            let client = if asker == Node {
                node.clone()
            } else {
                crate::server::http().no_proxy().build().unwrap()
            };
            let mut request = client.request(row.method.clone(), base + row.path);
            if let Some((_, token)) = tokens.iter().find(|it| it.0 == asker) {
                request = request.bearer_auth(token);
            }
            if asker == KeyHeader {
                request = request.header("x-api-key", KEY);
            }
            let kind = if row.is_call {
                "application/grpc"
            } else {
                "application/json"
            };
            let answer = ask(request.header("content-type", kind).body("")).await;
            let is_open = match row.class {
                'N' => true,
                'O' => auth == Auth::Contract,
                // Where there is a key it is asked for; whoever shows who they are needs none.
                _ => auth == Auth::Contract && key.is_none(),
            };
            let may = match asker {
                // A viewer who says so may not ask a model, also where nobody need say anything.
                Role(role) => role >= row.role || (is_open && row.class != 'K'),
                Key | KeyHeader => is_open || key.is_some(),
                _ => is_open,
            };
            assert_eq!(
                is_in(&answer),
                may,
                "{auth:?} {key:?} {asker:?} {} {}: {} {} {}",
                row.method,
                row.path,
                answer.status,
                answer.header("grpc-status"),
                answer.text
            );
            if !may && !row.is_call {
                let texts = ["Unauthorized\n", "Forbidden\n"];
                let is_limited = answer.status.as_u16() == 429;
                assert!(texts.contains(&answer.text.as_str()) || is_limited);
                assert_eq!(answer.header("access-control-allow-origin"), "*");
            }
        }
    }
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn every_orchion_route_asks_for_a_role_or_the_key_where_tokens_are_asked_for() {
    walk_orchion(Auth::Token, Some(KEY)).await;
    walk_orchion(Auth::Token, None).await;
}

#[tokio::test]
async fn every_orchion_route_is_as_its_contract_has_it() {
    walk_orchion(Auth::Contract, Some(KEY)).await;
    walk_orchion(Auth::Contract, None).await;
}

#[tokio::test]
async fn persys_methods_ask_for_a_role_in_either_mode_and_shut_doors_answer_nothing() {
    for auth in [Auth::Token, Auth::Contract] {
        let guarded = Guarded::opening(opened(&[(Contract::Persys, auth)]), |_, _| {}).await;
        let mut askers = vec![(None, String::new())];
        for role in AccessRole::ALL {
            askers.push((Some(role), guarded.token(role).await));
        }
        for row in rows(PERSYS) {
            for (role, token) in &askers {
                let answer = call(&guarded, row.path, token).await;
                let may = role.is_some_and(|role| role >= row.role);
                assert_eq!(is_in(&answer), may, "{role:?} {}: {answer:?}", row.path);
            }
        }
        let admin = &askers[3].1;
        for row in rows(ORCHION).iter().filter(|row| row.is_call) {
            let answer = call(&guarded, row.path, admin).await;
            assert_eq!(answer.header("grpc-status"), "12", "{}", row.path);
        }
        for row in rows(SPOT) {
            let request = guarded.server.request(row.method, row.path);
            let answer = ask(request.bearer_auth(admin)).await;
            assert_eq!(answer.status.as_u16(), 404, "{}", row.path);
        }
        guarded.server.shut_down().await;
    }
}

async fn call(guarded: &Guarded, path: &str, token: &str) -> Answer {
    let mut request = guarded.server.request(Method::POST, path);
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    ask(request.header("content-type", "application/grpc").body("")).await
}

#[tokio::test]
async fn what_each_door_relaxes_is_told() {
    let doors = opened(&[
        (Contract::Miaas, Auth::Contract),
        (Contract::Orchion, Auth::Contract),
        (Contract::Spot, Auth::Token),
    ]);
    let guarded = Guarded::opening(doors, |_, _| {}).await;
    let viewer = guarded.token(Viewer).await;
    let request = guarded.server.request(Method::GET, "/api/v1/doors");
    let doors = ask(request.bearer_auth(viewer)).await.json();
    let told = |at: usize, key: &str| -> BTreeSet<String> {
        serde_json::from_value(doors[at][key].clone()).unwrap()
    };
    assert_eq!(doors[0]["contract"], "miaas");
    let miaas: BTreeSet<String> = rows(MIAAS)
        .iter()
        .map(|row| format!("{} {}", row.method, row.path))
        .collect();
    assert_eq!(told(0, "open"), miaas);
    // Without a key nothing is asked for at Orchion's door.
    let orchion: BTreeSet<String> = rows(ORCHION)
        .iter()
        .filter(|row| row.class != 'N')
        .map(|row| row.path.to_owned())
        .collect();
    assert_eq!(told(1, "open"), orchion);
    assert!(told(1, "own").is_empty());
    assert_eq!(doors[2]["auth"], "token");
    assert!(told(2, "open").is_empty());
    let own = rows(SPOT)
        .into_iter()
        .filter(|row| !matches!(row.class, 'W' | 'A'));
    let own: BTreeSet<String> = own
        .map(|row| format!("{} {}", row.method, row.path))
        .collect();
    assert_eq!(told(2, "own"), own);
    guarded.server.shut_down().await;
}

#[tokio::test]
async fn without_login_nobody_is_asked_for_anything() {
    let spot = Spot::start().await;
    let (_, token) = create(&spot.server, "second").await;
    assert!(!token.is_empty());
    for row in rows(ORCHION)
        .iter()
        .filter(|row| !row.is_call && row.class == 'O')
    {
        let answer = spot.server.get(row.path).await;
        assert!(answer.status.is_success(), "{}", row.path);
    }
    spot.server.shut_down().await;
}
