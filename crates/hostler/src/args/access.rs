//! Who may come in: tokens, logins, the fleet's authority, and the TLS of server and agent.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{ClientArgs, OutputArgs, pair, span};

/// TLS of the server.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServerTrustArgs {
    /// Make the first admin's token anew, where it is lost
    #[arg(long, help_heading = "TLS")]
    pub(crate) reset_admin: bool,
    /// A certificate that somebody else made, to be shown to all but members of the fleet
    /// [env: HOSTLER_TLS_CERT]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key [env: HOSTLER_TLS_KEY]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) tls_key: Option<PathBuf>,
    /// An authority that somebody else made: its key, its certificate, and others to be believed
    /// [env: HOSTLER_TLS_AUTHORITY]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) tls_authority: Option<PathBuf>,
    /// A name or address of this server beside those that it finds; repeatable
    /// [env: HOSTLER_TLS_NAMES, comma-separated]
    #[arg(long = "tls-name", value_name = "NAME", help_heading = "TLS")]
    pub(crate) tls_names: Vec<String>,
}

/// TLS of the agent.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct AgentTrustArgs {
    /// The token to join with, in a file; HOSTLER_JOIN_TOKEN holds the token itself
    /// [env: HOSTLER_JOIN_TOKEN_FILE]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) token_file: Option<PathBuf>,
    /// Whom to believe, where neither the token nor this machine says it [env: HOSTLER_CA]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) ca: Option<PathBuf>,
    /// A certificate to show to another system's control plane [env: HOSTLER_TLS_CERT]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key [env: HOSTLER_TLS_KEY]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub(crate) tls_key: Option<PathBuf>,
}

/// Who may come in, and as whom one asks.
#[derive(Debug, Subcommand)]
pub(crate) enum AccessCommand {
    /// Decide who may come in: machines, people, programs
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look after the fleet's authority, by which its members know each other
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// Look after what MIaaS's nodes show
    #[command(subcommand)]
    Miaas(MiaasCommand),
    /// Keep a server's address and a token for the commands that follow
    Login(LoginArgs),
    /// Forget them
    Logout,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token with which machines join, and show the command that joins
    Create(TokenCreateArgs),
    /// Make a token for a person or a program
    Issue(TokenIssueArgs),
    /// List tokens
    Ls(TokenLsArgs),
    /// Make a token worthless
    Rm(TokenRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// For how long it is good [default: 1h]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) ttl: Option<Duration>,
    /// How many machines it lets in [default: any number]
    #[arg(long, value_name = "COUNT")]
    pub(crate) uses: Option<u32>,
    /// A label that its nodes get; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) labels: Vec<(String, String)>,
    /// The machine takes the place of this node: its name and labels
    #[arg(long, value_name = "NODE")]
    pub(crate) replace: Option<String>,
    /// Machines wait until `hostler node approve` lets them in
    #[arg(long)]
    pub(crate) approve: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// What the bearer of a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleWord {
    /// Look at everything but secrets
    Viewer,
    /// Change what runs, and nodes
    Operator,
    /// Decide who may come in
    Admin,
}

#[derive(Debug, Args)]
pub(crate) struct TokenIssueArgs {
    /// What its bearer is called in events and in the audit log
    pub(crate) name: String,
    /// What its bearer may do
    #[arg(long, default_value = "viewer")]
    pub(crate) role: RoleWord,
    /// It is good for this account of the spot contract alone
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) account: Option<String>,
    /// For how long it is good [default: until it is removed]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TokenLsArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRmArgs {
    /// Name or id
    #[arg(required = true)]
    pub(crate) tokens: Vec<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// Show whom the fleet's members believe
    Show(AuthorityArgs),
    /// Give the fleet's authority a new key; the old one stays believed
    Rotate(AuthorityArgs),
    /// Believe the former keys no more; what knows only those is shut out
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RetireArgs {
    /// Although nodes know nothing newer
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) authority: AuthorityArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MiaasCommand {
    /// Let another key sign the tokens of MIaaS's nodes; tokens that are out stay good until they end
    RotateKey(RotateKeyArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RotateKeyArgs {
    /// Tokens that are out are worth nothing from now on, and nodes must register anew
    #[arg(long)]
    pub(crate) at_once: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AuthorityArgs {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The server, such as `https://fleet.example:8080`
    pub(crate) addr: String,
    /// The token, in a file; `-` reads it from standard input [env: HOSTLER_TOKEN]
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) token_file: PathBuf,
    /// Whom to believe [env: HOSTLER_CA] [default: the server's authority if --print is given, else what this
    /// machine believes]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// The print of the fleet's authority, as `hostler authority show` has it
    #[arg(long, value_name = "SHA256", conflicts_with = "ca")]
    pub(crate) print: Option<String>,
}

impl TokenCommand {
    pub(crate) const fn client(&self) -> &ClientArgs {
        match self {
            Self::Create(args) => &args.client,
            Self::Issue(args) => &args.client,
            Self::Ls(args) => &args.client,
            Self::Rm(args) => &args.client,
        }
    }
}

impl AuthorityCommand {
    pub(crate) const fn client(&self) -> &ClientArgs {
        match self {
            Self::Show(args) | Self::Rotate(args) => &args.client,
            Self::Retire(args) => &args.authority.client,
        }
    }
}
