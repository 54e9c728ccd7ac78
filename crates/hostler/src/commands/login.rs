//! `login`: keeps a server's address, whom to believe there, and a token, for the commands that follow.

use std::io::Read as _;
use std::path::Path;

use hostler_kit::trust::{Anchors, ClientTls, Print};
use hostler_wire::client::Client;

use super::{single_thread, word};
use crate::args::LoginArgs;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{Environment, Login};
use crate::status::ExitStatus;

/// Longest token that is read.
const TOKEN_BYTES: u64 = 4_096;

pub(crate) fn login(
    args: LoginArgs,
    environment: &Environment,
    printer: &Printer,
) -> Result<ExitStatus, Failure> {
    let path = Login::own_path(environment).ok_or_else(|| {
        Failure::usage("there is no home directory to keep a login in", "set HOME")
    })?;
    let token = match environment.get("HOSTLER_TOKEN") {
        Some(token) => token.to_owned(),
        None => read_token(&args.token_file)?,
    };
    single_thread()?.block_on(async {
        let anchors = anchors(&args, environment)?;
        let tls = ClientTls::new(&anchors, None)?.config();
        let client = Client::secured(&args.addr, Some(&token), Some(tls))?;
        let who = client.whoami().await?;
        let ca = match anchors {
            Anchors::Machine => None,
            // By the print only the first contact is made: from now on the certificates themselves are known.
            Anchors::Pinned(_) | Anchors::Roots(_) | Anchors::Called(_) => {
                Some(client.authority().await?.certificates)
            }
        };
        let login = Login {
            addr: client.addr().to_owned(),
            token,
            ca,
        };
        login.write(&path)?;
        let role = who
            .role
            .map_or_else(String::new, |role| format!(", {}", word(&role)));
        printer.data(&format!(
            "logged in to {} as {}{role}",
            client.addr(),
            who.name
        ));
        Ok(ExitStatus::Done)
    })
}

/// Forgets the login.
pub(crate) fn logout(environment: &Environment, printer: &Printer) -> Result<ExitStatus, Failure> {
    let path = Login::own_path(environment);
    match path.map(std::fs::remove_file) {
        Some(Ok(())) => printer.data("logged out; the token is good until it is removed"),
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => {
            let sentence = format!("the login cannot be forgotten: {error}");
            return Err(Failure::failed(sentence, "delete the file by hand"));
        }
        Some(Err(_)) | None => printer.data("there was no login"),
    }
    Ok(ExitStatus::Done)
}

fn anchors(args: &LoginArgs, environment: &Environment) -> Result<Anchors, Failure> {
    if let Some(print) = &args.print {
        return Ok(Anchors::Pinned(print.parse::<Print>()?));
    }
    let named = args
        .ca
        .clone()
        .or_else(|| environment.get("HOSTLER_CA").map(Into::into));
    Ok(match named {
        Some(path) => Anchors::from_file(&path)?,
        None => Anchors::Machine,
    })
}

fn read_token(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(TOKEN_BYTES)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(TOKEN_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| {
        let sentence = format!("the token cannot be read: {error}");
        Failure::usage(
            sentence,
            "give it on standard input, or in a file with --token-file",
        )
    })?;
    match text.trim() {
        "" => Err(Failure::usage(
            "there is no token",
            "give it on standard input, in a file with --token-file, or in HOSTLER_TOKEN",
        )),
        token => Ok(token.to_owned()),
    }
}
