//! `token`: who may come in. A secret is shown once, on standard output, and never again.

use hostler_wire::api::{AccessRole, IssuedJoinToken, JoinToken, NewJoinToken, NewToken, Token};
use serde::Serialize;

use super::{Remote, word};
use crate::age;
use crate::args::{
    OutputForm, RoleWord, TokenCommand, TokenCreateArgs, TokenIssueArgs, TokenLsArgs, TokenRmArgs,
};
use crate::failure::Failure;
use crate::settings;
use crate::status::ExitStatus;
use crate::table::Table;

pub(crate) async fn token(
    remote: &Remote<'_>,
    command: TokenCommand,
) -> Result<ExitStatus, Failure> {
    match command {
        TokenCommand::Create(args) => create(remote, args).await?,
        TokenCommand::Issue(args) => issue(remote, args).await?,
        TokenCommand::Ls(args) => list(remote, args).await?,
        TokenCommand::Rm(args) => remove(remote, args).await?,
    }
    Ok(ExitStatus::Done)
}

async fn create(remote: &Remote<'_>, args: TokenCreateArgs) -> Result<(), Failure> {
    let new = NewJoinToken {
        ttl_seconds: args.ttl.map(|ttl| ttl.as_secs().max(1)),
        uses: args.uses,
        labels: args.labels.into_iter().collect(),
        replaces: args.replace,
        needs_approval: args.approve,
    };
    let issued = remote.client.issue_join_token(&new).await?;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &issued)?,
        OutputForm::Name => remote.printer.data(&issued.token),
        OutputForm::Table | OutputForm::Wide => {
            let server = server_of(remote).await?;
            remote.printer.data(&join_command(&server, &issued));
            let until = format!("good until {}", issued.about.expires_at);
            remote.printer.talk(&until);
        }
    }
    Ok(())
}

/// What is typed on the machine that is to join. The token is in the environment, for everybody on a machine can read
/// command lines.
pub(crate) fn join_command(server: &str, issued: &IssuedJoinToken) -> String {
    format!(
        "HOSTLER_JOIN_TOKEN={} hostler agent --server {server}",
        issued.token
    )
}

/// The address under which other machines reach the server.
async fn server_of(remote: &Remote<'_>) -> Result<String, Failure> {
    let is_local = |addr: &str| {
        ["://127.", "://localhost", "://[::1]"]
            .iter()
            .any(|it| addr.contains(it))
    };
    let addr = remote.client.addr();
    if !is_local(addr) {
        return Ok(addr.to_owned());
    }
    let authority = remote.client.authority().await?;
    let mut urls = authority.urls.into_iter().filter(|url| !is_local(url));
    Ok(urls.next().unwrap_or_else(|| addr.to_owned()))
}

async fn issue(remote: &Remote<'_>, args: TokenIssueArgs) -> Result<(), Failure> {
    let new = NewToken {
        name: args.name,
        role: match args.role {
            RoleWord::Viewer => AccessRole::Viewer,
            RoleWord::Operator => AccessRole::Operator,
            RoleWord::Admin => AccessRole::Admin,
        },
        account: args.account,
        ttl_seconds: args.ttl.map(|ttl| ttl.as_secs().max(1)),
    };
    let issued = remote.client.issue_token(&new).await?;
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &issued)?,
        OutputForm::Name | OutputForm::Table | OutputForm::Wide => {
            remote.printer.data(&issued.token);
            remote.printer.talk("it is not shown again");
        }
    }
    Ok(())
}

/// Both kinds.
#[derive(Serialize)]
struct Tokens {
    tokens: Vec<Token>,
    join_tokens: Vec<JoinToken>,
}

async fn list(remote: &Remote<'_>, args: TokenLsArgs) -> Result<(), Failure> {
    let tokens = Tokens {
        tokens: remote.client.tokens().await?,
        join_tokens: remote.client.join_tokens().await?,
    };
    match settings::form(&args.output) {
        form @ (OutputForm::Json | OutputForm::Yaml) => remote.printer.document(form, &tokens)?,
        OutputForm::Name => {
            let ids = tokens.tokens.iter().map(|token| &token.name);
            let ids = ids.chain(tokens.join_tokens.iter().map(|token| &token.id));
            ids.for_each(|id| remote.printer.data(id));
        }
        OutputForm::Table | OutputForm::Wide => show(remote, &tokens),
    }
    Ok(())
}

fn show(remote: &Remote<'_>, tokens: &Tokens) {
    let mut table = Table::new(&["NAME", "FOR", "MAY", "USES LEFT", "UNTIL", "BY", "AGE"]);
    for token in &tokens.tokens {
        let may = token.account.as_ref().map_or_else(
            || word(&token.role),
            |account| format!("{} of account {account}", word(&token.role)),
        );
        table.row(vec![
            token.name.clone().into(),
            "people and programs".into(),
            may.into(),
            "-".into(),
            token
                .expires_at
                .clone()
                .unwrap_or_else(|| "-".to_owned())
                .into(),
            token.created_by.clone().into(),
            age::since(&token.created_at, remote.now()).into(),
        ]);
    }
    for token in &tokens.join_tokens {
        let may = match (&token.replaces, token.needs_approval) {
            (Some(_), _) => "join in another's place",
            (None, true) => "ask to join",
            (None, false) => "join",
        };
        let left = token
            .uses_left
            .map_or_else(|| "any".to_owned(), |left| left.to_string());
        table.row(vec![
            token.id.clone().into(),
            "machines".into(),
            may.into(),
            left.into(),
            token.expires_at.clone().into(),
            token.created_by.clone().into(),
            age::since(&token.created_at, remote.now()).into(),
        ]);
    }
    table.print(remote.printer);
}

async fn remove(remote: &Remote<'_>, args: TokenRmArgs) -> Result<(), Failure> {
    for token in &args.tokens {
        // A name may be anything but an id, so nothing is meant by both.
        let removed = match remote.client.revoke_token(token).await {
            Err(error) if error.code() == Some("token-not-found") => {
                remote.client.revoke_join_token(token).await.map(drop)
            }
            other => other.map(drop),
        };
        removed?;
        remote.printer.data(&format!("{token}: removed"));
    }
    Ok(())
}
