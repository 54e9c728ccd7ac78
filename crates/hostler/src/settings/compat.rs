//! The doors of the systems whose contracts we speak, and their historic ports. A port is opened by name and serves only
//! its contract. The main listener of a server without login carries all contracts anyway; that of a server with login
//! carries those that are named, to whom it is told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hostler_doors::{Auth, Dialect};
use hostler_model::Contract;

use super::{Environment, allowed};
use crate::failure::Failure;

/// A listener beside the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompatListener {
    pub(crate) historic: &'static Historic,
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Tls,
}

/// What a port speaks below HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    /// With the fleet's certificate.
    On,
    Off,
    /// Both, told apart by the first byte.
    Sniff,
}

/// What is opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compat {
    pub(super) listeners: Vec<CompatListener>,
    /// On a server with login, and to whom.
    pub(super) doors: BTreeMap<Contract, Auth>,
}

/// What is told: words such as `spot`, `spot=HOST:PORT`, `spot=contract`, `spot=off`.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) names: Vec<String>,
    pub(super) auth: Vec<String>,
    pub(super) tls: Vec<String>,
}

/// A port that programs of another system expect.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Historic {
    /// How `--compat` names it.
    pub(crate) word: &'static str,
    pub(crate) dialect: Dialect,
    port: u16,
    /// The variable in which that system names the port.
    variable: Option<&'static str>,
    /// Who else usually takes the port, for whoever finds it taken.
    pub(crate) rival: &'static str,
}

impl Tls {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Sniff => "sniff",
        }
    }

    /// How an address there begins.
    pub(crate) const fn scheme(self) -> &'static str {
        match self {
            Self::On => "https",
            Self::Off => "http",
            Self::Sniff => "https and http",
        }
    }
}

impl Historic {
    pub(crate) const fn contract(&self) -> Contract {
        match self.dialect {
            Dialect::Hostler => Contract::Session,
            Dialect::Orchion => Contract::Orchion,
            Dialect::Persys | Dialect::PersysFigures => Contract::Persys,
            Dialect::Spot => Contract::Spot,
        }
    }

    /// Persys's ports prove their callers in their own way, and are told about with words of their own.
    const fn is_persys(&self) -> bool {
        matches!(self.contract(), Contract::Persys)
    }
}

static ORCHION: Historic = Historic {
    word: "orchion",
    dialect: Dialect::Orchion,
    port: 50051,
    variable: None,
    rival: "a Persys agent",
};
static PERSYS: Historic = Historic {
    word: "persys",
    dialect: Dialect::Persys,
    port: 8085,
    variable: Some("GRPC_PORT"),
    rival: "a Persys scheduler",
};
static PERSYS_METRICS: Historic = Historic {
    word: "persys-metrics",
    dialect: Dialect::PersysFigures,
    port: 8084,
    variable: Some("METRICS_PORT"),
    rival: "a Persys scheduler",
};
static SPOT: Historic = Historic {
    word: "spot",
    dialect: Dialect::Spot,
    port: 5000,
    variable: None,
    rival: "a Docker registry",
};

/// What each word opens. MIaaS's port is the main one.
static WORDS: [(&str, &[&Historic]); 6] = [
    ("all", &[&ORCHION, &PERSYS, &PERSYS_METRICS, &SPOT]),
    ("miaas", &[]),
    ("orchion", &[&ORCHION]),
    ("persys", &[&PERSYS, &PERSYS_METRICS]),
    ("persys-metrics", &[&PERSYS_METRICS]),
    ("spot", &[&SPOT]),
];

/// What decides about the addresses.
pub(super) struct Around<'a> {
    pub(super) environment: &'a Environment,
    /// Where the main listener is: the others are there as well unless they are told otherwise.
    pub(super) host: IpAddr,
    pub(super) insecure: bool,
    /// Whether callers are asked who they are: there is a certificate then as well.
    pub(super) login: bool,
    /// Persys's own `-insecure`: its port speaks plainly. It also opens the port.
    pub(super) persys_insecure: bool,
}

impl Around<'_> {
    /// Whether whoever connects there must show a certificate.
    fn asks(&self, historic: &Historic) -> bool {
        historic.dialect == Dialect::Persys && !self.persys_insecure
    }

    /// Whether a port may be reached from beyond this machine: callers prove themselves.
    fn may_be_beyond(&self, historic: &Historic) -> bool {
        self.asks(historic) || (self.login && !historic.is_persys())
    }
}

/// What the words ask for; for one port the later word wins.
pub(super) fn resolve(words: &Words, around: &Around<'_>) -> Result<Compat, Failure> {
    let mut listeners = listeners(&words.names, around)?;
    let mut doors = BTreeMap::new();
    if around.login {
        for word in split(&words.names) {
            doors.extend(contracts(name(word)).map(|contract| (contract, Auth::Token)));
        }
    } else if let Some(word) = words.auth.iter().chain(&words.tls).next() {
        return Err(Failure::usage(
            format!("`{word}` is about a server with login, and this one has none"),
            "leave it out, or start `hostler server` without --insecure",
        ));
    }
    for word in split(&words.auth) {
        let (named, auth) = auth(word)?;
        let Some(told) = doors.get_mut(&named) else {
            return Err(not_opened(named));
        };
        *told = auth;
    }
    for word in split(&words.tls) {
        let (named, tls) = tls(word)?;
        let mut ports = listeners.iter_mut();
        let port = ports.find(|port| port.historic.contract() == named);
        port.ok_or_else(|| not_opened(named))?.tls = tls;
    }
    Ok(Compat { listeners, doors })
}

fn split(words: &[String]) -> impl Iterator<Item = &str> {
    let words = words.iter().flat_map(|word| word.split(','));
    words.map(str::trim).filter(|word| !word.is_empty())
}

fn name(word: &str) -> &str {
    word.split_once('=').map_or(word, |(name, _)| name)
}

/// The contracts whose doors on the main listener a word opens.
fn contracts(name: &str) -> impl Iterator<Item = Contract> {
    let all = [
        Contract::Miaas,
        Contract::Orchion,
        Contract::Persys,
        Contract::Spot,
    ];
    let is_meant = move |it: &Contract| name == "all" || name == it.as_str();
    all.into_iter().filter(is_meant)
}

fn not_opened(contract: Contract) -> Failure {
    let word = contract.as_str();
    Failure::usage(
        format!("{word} is told about, and not opened"),
        format!("open it with `--compat {word}`, or leave that out"),
    )
}

/// Who may use a door, such as `spot=contract`.
fn auth(word: &str) -> Result<(Contract, Auth), Failure> {
    let (name, told) = word.split_once('=').unwrap_or((word, ""));
    let named = contracts(name).next().filter(|_| name != "all");
    let auth = match told {
        "token" => Some(Auth::Token),
        // What Persys's contract asks for is a certificate of its own authority.
        "contract" if named != Some(Contract::Persys) => Some(Auth::Contract),
        _ => None,
    };
    named.zip(auth).ok_or_else(|| {
        Failure::usage(
            format!("`{word}` does not say who may use which door"),
            "write `NAME=token` or `NAME=contract` for miaas, orchion or spot, or `persys=token`",
        )
    })
}

/// What a port speaks, such as `spot=sniff`.
fn tls(word: &str) -> Result<(Contract, Tls), Failure> {
    let (name, told) = word.split_once('=').unwrap_or((word, ""));
    let named = match name {
        "orchion" => Some(Contract::Orchion),
        "spot" => Some(Contract::Spot),
        _ => None,
    };
    let tls = match told {
        "on" => Some(Tls::On),
        "off" => Some(Tls::Off),
        "sniff" => Some(Tls::Sniff),
        _ => None,
    };
    named.zip(tls).ok_or_else(|| {
        Failure::usage(
            format!("`{word}` does not say what which port speaks"),
            "write `NAME=on`, `NAME=off` or `NAME=sniff` for orchion or spot",
        )
    })
}

/// The ports that the words ask for.
fn listeners(words: &[String], around: &Around<'_>) -> Result<Vec<CompatListener>, Failure> {
    let mut open: Vec<CompatListener> = Vec::new();
    let opened_by_persys = around.persys_insecure.then_some("persys");
    for word in opened_by_persys.into_iter().chain(split(words)) {
        for listener in one(word, around)? {
            open.retain(|it| it.historic != listener.historic);
            open.push(listener);
        }
    }
    let is_beyond =
        |it: &&CompatListener| !it.addr.ip().is_loopback() && !around.may_be_beyond(it.historic);
    if let Some(beyond) = open.iter().find(is_beyond).filter(|_| !around.insecure) {
        return Err(Failure::usage(
            format!(
                "{}'s contract has no login, so {} would be open to everyone who reaches it",
                beyond.historic.word, beyond.addr
            ),
            "name an address of this machine alone, as in `--compat spot=127.0.0.1:5000`, or start with --insecure",
        ));
    }
    Ok(open)
}

fn one(word: &str, around: &Around<'_>) -> Result<Vec<CompatListener>, Failure> {
    let (name, addr) = match word.split_once('=') {
        Some((name, addr)) => (name, Some(addr)),
        None => (word, None),
    };
    let Some((_, historic)) = WORDS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = WORDS.iter().map(|(word, _)| *word).collect();
        return Err(Failure::usage(
            format!("`{name}` is no contract whose port could be opened"),
            format!("write one of {}", known.join(", ")),
        ));
    };
    match (addr, *historic) {
        (None, historic) => historic.iter().map(|it| usual(it, around)).collect(),
        // The address of a pair is that of its first.
        (Some(addr), [first, rest @ ..]) if name != "all" => {
            let may_be_beyond = around.insecure || around.may_be_beyond(first);
            let told = CompatListener::at(allowed(addr, may_be_beyond)?, (first, around));
            let rest = rest.iter().map(|it| usual(it, around));
            std::iter::once(Ok(told)).chain(rest).collect()
        }
        (Some(_), _) => Err(Failure::usage(
            format!("`{name}` has no port of its own"),
            "write `NAME=HOST:PORT` for orchion, persys, persys-metrics or spot",
        )),
    }
}

fn usual(historic: &'static Historic, around: &Around<'_>) -> Result<CompatListener, Failure> {
    let named = historic
        .variable
        .and_then(|variable| Some((variable, around.environment.get(variable)?)));
    let port = match named {
        None => historic.port,
        Some((variable, text)) => {
            let port = text.parse::<u16>().ok().filter(|port| *port > 0);
            port.ok_or_else(|| {
                Failure::usage(
                    format!("{variable} is `{text}`, which is no port"),
                    "set it to a number from 1 to 65535",
                )
            })?
        }
    };
    // Persys's figures are for everyone who reaches them: beside a login they stay on this machine.
    let is_open = historic.dialect == Dialect::PersysFigures && !around.insecure;
    let host = match around.host {
        IpAddr::V4(_) if is_open => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) if is_open => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    let addr = SocketAddr::new(host, port);
    Ok(CompatListener::at(addr, (historic, around)))
}

impl CompatListener {
    /// Beyond this machine a server with login speaks TLS unless it is told otherwise by name; Persys's port does
    /// everywhere, with certificates of Persys's own.
    fn at(addr: SocketAddr, (historic, around): (&'static Historic, &Around<'_>)) -> Self {
        let is_secured = around.login && !addr.ip().is_loopback() && !historic.is_persys();
        Self {
            historic,
            addr,
            tls: if is_secured || around.asks(historic) {
                Tls::On
            } else {
                Tls::Off
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(
        words: &[&str],
        persys_insecure: bool,
        variables: &[(&str, &str)],
    ) -> Result<Vec<(&'static str, String)>, Failure> {
        let environment = Environment::of(variables);
        let around = Around {
            environment: &environment,
            host: [127, 0, 0, 1].into(),
            insecure: false,
            login: false,
            persys_insecure,
        };
        let words = Words {
            names: words.iter().map(|word| (*word).to_owned()).collect(),
            ..Words::default()
        };
        let open = resolve(&words, &around)?;
        let told = open
            .listeners
            .iter()
            .map(|it| (it.historic.word, it.addr.to_string()));
        Ok(told.collect())
    }

    #[test]
    fn each_word_opens_its_ports_beside_the_main_listener() {
        let none: [(&str, &str); 0] = [];
        assert!(ports(&[], false, &none).unwrap().is_empty());
        assert!(ports(&["miaas"], false, &none).unwrap().is_empty());
        assert_eq!(
            ports(&["orchion", "spot"], false, &none).unwrap(),
            [
                ("orchion", "127.0.0.1:50051".to_owned()),
                ("spot", "127.0.0.1:5000".to_owned())
            ]
        );
        assert_eq!(ports(&["all"], true, &none).unwrap().len(), 4);
    }

    #[test]
    fn an_address_can_be_told_and_the_last_word_wins() {
        let told = ports(&["spot", "spot=[::1]:7"], false, &[]).unwrap();
        assert_eq!(told, [("spot", "[::1]:7".to_owned())]);
        assert!(
            ports(&["spot=0.0.0.0:5000"], false, &[]).is_err(),
            "there is no login"
        );
        assert!(ports(&["all=127.0.0.1:1"], true, &[]).is_err());
        assert!(ports(&["miaas=127.0.0.1:1"], false, &[]).is_err());
        assert!(ports(&["nomad"], false, &[]).is_err());
    }

    type Told = (Vec<(Contract, Auth)>, Vec<(String, Tls)>);

    /// On a server with login that listens everywhere: each door with who may use it, and each port with what it speaks.
    fn with_login(names: &[&str], auth: &[&str], tls: &[&str]) -> Result<Told, Failure> {
        let environment = Environment::of(&[]);
        let around = Around {
            environment: &environment,
            host: [0, 0, 0, 0].into(),
            insecure: false,
            login: true,
            persys_insecure: false,
        };
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let words = Words {
            names: owned(names),
            auth: owned(auth),
            tls: owned(tls),
        };
        let Compat { listeners, doors } = resolve(&words, &around)?;
        let ports = listeners.iter().map(|it| (it.addr.to_string(), it.tls));
        Ok((doors.into_iter().collect(), ports.collect()))
    }

    #[test]
    fn a_server_with_login_opens_doors_by_name_to_whom_it_is_told() {
        assert_eq!(with_login(&[], &[], &[]).unwrap(), (vec![], vec![]));
        let (doors, ports) = with_login(
            &["miaas,spot", "orchion=127.0.0.1:7"],
            &["spot=contract"],
            &["orchion=sniff"],
        )
        .unwrap();
        let expected = [
            (Contract::Miaas, Auth::Token),
            (Contract::Orchion, Auth::Token),
            (Contract::Spot, Auth::Contract),
        ];
        assert_eq!(doors, expected);
        let expected = [
            ("0.0.0.0:5000".to_owned(), Tls::On),
            ("127.0.0.1:7".to_owned(), Tls::Sniff),
        ];
        assert_eq!(ports, expected);
        let (_, ports) = with_login(&["spot"], &[], &["spot=off"]).unwrap();
        assert_eq!(ports, [("0.0.0.0:5000".to_owned(), Tls::Off)]);
        let (_, ports) = with_login(&["spot=127.0.0.1:0"], &[], &[]).unwrap();
        assert_eq!(ports[0].1, Tls::Off, "on this machine alone");
    }

    #[test]
    fn what_is_told_about_doors_must_make_sense() {
        for (auth, tls) in [
            (&["miaas=contract"][..], &[][..]),
            (&["spot=open"], &[]),
            (&["spot"], &[]),
            (&["all=contract"], &[]),
            (&["persys=contract"], &[]),
            (&[], &["orchion=off"]),
            (&[], &["miaas=off"]),
            (&[], &["spot=maybe"]),
        ] {
            assert!(
                with_login(&["spot"], auth, tls).is_err(),
                "{auth:?} {tls:?}"
            );
        }
        let (_, ports) = with_login(&["persys"], &[], &[]).unwrap();
        assert_eq!(ports[0].1, Tls::On, "callers show certificates");
        let environment = Environment::of(&[]);
        let around = Around {
            environment: &environment,
            host: [127, 0, 0, 1].into(),
            insecure: true,
            login: false,
            persys_insecure: false,
        };
        let words = Words {
            names: vec!["spot".to_owned()],
            auth: vec!["spot=token".to_owned()],
            ..Words::default()
        };
        let refused = resolve(&words, &around).unwrap_err();
        assert!(refused.sentence.contains("has none"), "{refused:?}");
    }

    #[test]
    fn persys_needs_its_own_word_for_plain_text_and_reads_its_own_variables() {
        assert!(ports(&["persys=0.0.0.0:1"], true, &[]).is_err());
        let named = [("GRPC_PORT", "9085"), ("METRICS_PORT", "9084")];
        let expected = [
            ("persys", "127.0.0.1:9085".to_owned()),
            ("persys-metrics", "127.0.0.1:9084".to_owned()),
        ];
        assert_eq!(ports(&["persys"], false, &named).unwrap(), expected);
        assert_eq!(ports(&["persys"], true, &named).unwrap(), expected);
        assert_eq!(
            ports(&[], true, &named).unwrap(),
            expected,
            "the word opens the port"
        );
        let beyond = ports(&["persys=0.0.0.0:1"], false, &[]).unwrap();
        assert_eq!(beyond[0].1, "0.0.0.0:1", "certificates are its login");
        for bad in ["0", "65536", "http"] {
            assert!(ports(&[], true, &[("GRPC_PORT", bad)]).is_err(), "{bad}");
        }
    }
}
