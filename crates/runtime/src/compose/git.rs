//! A project out of a repository, through the system's git: a shallow fetch of one branch, tag or commit.
//!
//! No address and no word of git is passed on before every credential is out of it. The token is read from its
//! file on the node and reaches git through its environment, never through its arguments.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hostler_model::FailureCode;
use hostler_model::spec::GitSource;

use super::project::Checkout;
use super::tool::{Call, Ended, Lost};
use crate::{RuntimeError, disk};

/// A large repository over a slow line.
const PATIENCE: Duration = Duration::from_secs(600);
/// Where a compose file usually is.
const USUAL: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];
/// What git asks for a user name and a password; it takes them from the variables below.
const HELPER: &str = "credential.helper=!f() { test \"$1\" = get || exit 0; \
                      echo \"username=$HOSTLER_GIT_USER\"; echo \"password=$HOSTLER_GIT_TOKEN\"; }; f";
/// Hosts that take a token take any name with it.
const ANY_USER: &str = "x-access-token";

/// One repository that is being fetched.
pub(super) struct Fetch<'a> {
    pub(super) git: &'a Path,
    pub(super) env: &'a [(String, String)],
    pub(super) source: &'a GitSource,
}

/// Not a word of it may be shown.
struct Token {
    user: String,
    secret: String,
}

impl Fetch<'_> {
    /// Puts the project into the directory, and answers which file and commit it is.
    pub(super) async fn fill(&self, dir: &Path) -> Result<Checkout, RuntimeError> {
        let token = self.token().await?;
        let made = dir.to_owned();
        disk::off_thread("make the checkout", move || std::fs::create_dir_all(made)).await?;
        self.local(dir, &["init", "--quiet", "--template="]).await?;
        let told = self.remote(dir, token.as_ref(), &["ls-remote", "--quiet"], None);
        let told = told.await?;
        if !told.is_success() {
            return Err(self.unreachable(&told, token.as_ref()));
        }
        let fetched = self.fetch(dir, token.as_ref()).await?;
        let checkout = ["checkout", "--quiet", "--force", "--detach", fetched];
        self.local(dir, &checkout).await?;
        let commit = self.local(dir, &["rev-parse", "HEAD"]).await?.text();
        let file = self.file(dir).await?;
        Ok(Checkout { file, commit })
    }

    /// What was asked for and nothing beside it; a commit that the host does not give by itself is looked for in
    /// all that there is. Answers what is to be checked out.
    async fn fetch(&self, dir: &Path, token: Option<&Token>) -> Result<&str, RuntimeError> {
        let reference = self.source.reference.as_deref().unwrap_or("HEAD");
        let shallow = ["fetch", "--quiet", "--no-tags", "--depth=1"];
        let fetched = self.remote(dir, token, &shallow, Some(reference)).await?;
        if fetched.is_success() {
            return Ok("FETCH_HEAD");
        }
        let is_commit = reference.len() >= 7 && reference.bytes().all(|b| b.is_ascii_hexdigit());
        if is_commit {
            let all = ["fetch", "--quiet", "--tags"];
            let spec = "+refs/*:refs/remotes/origin/*";
            let whole = self.remote(dir, token, &all, Some(spec)).await?;
            let commit = format!("{reference}^{{commit}}");
            let known = ["rev-parse", "--quiet", "--verify", commit.as_str()];
            if whole.is_success() && self.local(dir, &known).await.is_ok() {
                return Ok(reference);
            }
        }
        // The repository answered a moment ago.
        Err(RuntimeError::Unsatisfiable {
            code: FailureCode::GitRefNotFound,
            message: format!(
                "the repository {} does not give `{reference}`: {}",
                self.shown(),
                clean(&fetched.words(), token)
            ),
        })
    }

    /// The compose file, by its name or by the usual ones, and never outside the checkout.
    async fn file(&self, dir: &Path) -> Result<PathBuf, RuntimeError> {
        let (dir, named) = (dir.to_owned(), self.source.path.clone());
        let shown = self.shown();
        let found = move || {
            let names = named
                .clone()
                .map_or_else(|| USUAL.map(str::to_owned).to_vec(), |name| vec![name]);
            let root = dir.canonicalize()?;
            let is_within = |name: &String| {
                let file = dir.join(name).canonicalize();
                file.is_ok_and(|file| file.starts_with(&root) && file.is_file())
            };
            Ok((names.iter().find(|name| is_within(name)).cloned(), names))
        };
        let (found, names) = disk::off_thread("look for the compose file", found).await?;
        found
            .map(PathBuf::from)
            .ok_or_else(|| RuntimeError::Unsatisfiable {
                code: FailureCode::ComposeFileMissing,
                message: format!("the repository {shown} has no file {}", names.join(", ")),
            })
    }

    /// A verb that speaks to the repository.
    async fn remote(
        &self,
        dir: &Path,
        token: Option<&Token>,
        verb: &[&str],
        reference: Option<&str>,
    ) -> Result<Ended, RuntimeError> {
        let mut call = self.call(dir);
        if let Some(token) = token {
            call = call
                // Forgets the helpers of the machine first.
                .args(["-c", "credential.helper=", "-c", HELPER])
                .env("HOSTLER_GIT_USER", &token.user)
                .env("HOSTLER_GIT_TOKEN", &token.secret);
        }
        let call = call
            .args(verb.iter().copied())
            .args(["--", &self.source.repo])
            .args(reference);
        self.ended(call).await
    }

    async fn local(&self, dir: &Path, verb: &[&str]) -> Result<Ended, RuntimeError> {
        let ended = self
            .ended(self.call(dir).args(verb.iter().copied()))
            .await?;
        if ended.is_success() {
            return Ok(ended);
        }
        let source = std::io::Error::other(ended.words());
        Err(disk::error("check out the project", source))
    }

    fn call(&self, dir: &Path) -> Call {
        Call::new(self.git, self.env, PATIENCE)
            // Nobody is there to be asked, and the words are to be the same everywhere.
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes")
            .env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh")
            .env("LC_ALL", "C")
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "advice.detachedHead=false",
            ])
            .within(dir)
    }

    async fn ended(&self, call: Call) -> Result<Ended, RuntimeError> {
        call.run().await.map_err(|lost| match lost {
            Lost::Missing => RuntimeError::Unsatisfiable {
                code: FailureCode::GitMissing,
                message:
                    "there is no `git` on this node; install it for projects out of repositories"
                        .to_owned(),
            },
            Lost::TimedOut(patience) => RuntimeError::Unsatisfiable {
                code: FailureCode::GitUnreachable,
                message: format!(
                    "the repository {} has not come within {} s",
                    self.shown(),
                    patience.as_secs()
                ),
            },
            Lost::Io(source) => disk::error("run git", source),
        })
    }

    fn unreachable(&self, told: &Ended, token: Option<&Token>) -> RuntimeError {
        const REFUSALS: [&str; 5] = [
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "Permission denied",
            "The requested URL returned error: 403",
        ];
        let complaint = told.complaint();
        let is_refused = REFUSALS.iter().any(|words| complaint.contains(words));
        let (code, what) = if is_refused {
            (FailureCode::GitUnauthorized, "does not let this node in")
        } else {
            (FailureCode::GitUnreachable, "cannot be reached")
        };
        RuntimeError::Unsatisfiable {
            code,
            message: format!(
                "the repository {} {what}: {}",
                self.shown(),
                clean(&told.words(), token)
            ),
        }
    }

    async fn token(&self) -> Result<Option<Token>, RuntimeError> {
        let Some(path) = self.source.token_file.clone() else {
            return Ok(None);
        };
        let read = tokio::fs::read_to_string(&path).await;
        let text = read.map_err(|error| RuntimeError::Unsatisfiable {
            code: FailureCode::GitTokenUnreadable,
            message: format!("the token's file {path} cannot be read: {error}"),
        })?;
        let text = text.trim();
        let (user, secret) = text.split_once(':').unwrap_or((ANY_USER, text));
        Ok(Some(Token {
            user: user.to_owned(),
            secret: secret.to_owned(),
        }))
    }

    fn shown(&self) -> String {
        without_credentials(&self.source.repo)
    }
}

/// Takes the token out of words of others.
fn clean(words: &str, token: Option<&Token>) -> String {
    let words = words
        .split(' ')
        .map(without_credentials)
        .collect::<Vec<_>>()
        .join(" ");
    match token {
        Some(token) if !token.secret.is_empty() => words.replace(&token.secret, "***"),
        _ => words,
    }
}

/// An address without what stands before its `@`.
pub(super) fn without_credentials(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{}", &rest[end..]),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_is_left_in_what_is_shown() {
        for (given, shown) in [
            ("https://t0ken@host/r.git", "https://***@host/r.git"),
            ("http://a:t0ken@host:1/r?x@y", "http://***@host:1/r?x@y"),
            ("https://host/r@v1", "https://host/r@v1"),
            ("git@host:r", "git@host:r"),
        ] {
            assert_eq!(without_credentials(given), shown);
        }
        let token = Token {
            user: "x".to_owned(),
            secret: "t0ken".to_owned(),
        };
        let words = "fatal: unable to access 'https://u:pw@host/r/': t0ken is wrong";
        let cleaned = clean(words, Some(&token));
        assert!(
            !cleaned.contains("pw") && !cleaned.contains("t0ken"),
            "{cleaned}"
        );
    }
}
