//! The historic ports of the systems whose contracts we speak. Each is opened by name and serves only its contract;
//! the main listener carries all of them anyway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hostler_doors::Dialect;

use super::{Environment, allowed};
use crate::failure::Failure;

/// A listener beside the main one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompatListener {
    pub(crate) historic: &'static Historic,
    pub(crate) addr: SocketAddr,
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
    /// Persys's own `-insecure`: its port speaks plainly. It also opens the port.
    pub(super) persys_insecure: bool,
}

impl Around<'_> {
    /// Whether whoever connects there must show a certificate.
    fn asks(&self, historic: &Historic) -> bool {
        historic.dialect == Dialect::Persys && !self.persys_insecure
    }
}

/// The listeners that the words ask for; for one port the later word wins.
pub(super) fn resolve(
    words: &[String],
    around: &Around<'_>,
) -> Result<Vec<CompatListener>, Failure> {
    let mut open: Vec<CompatListener> = Vec::new();
    let opened_by_persys = around.persys_insecure.then(|| "persys".to_owned());
    for word in opened_by_persys.iter().chain(words) {
        for listener in one(word.trim(), around)? {
            open.retain(|it| it.historic != listener.historic);
            open.push(listener);
        }
    }
    let is_beyond = |it: &&CompatListener| !it.addr.ip().is_loopback() && !around.asks(it.historic);
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
            let told = CompatListener {
                historic: first,
                addr: allowed(addr, around.insecure || around.asks(first))?,
            };
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
    Ok(CompatListener { historic, addr })
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
            persys_insecure,
        };
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let open = resolve(&words, &around)?;
        let told = open
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
