//! A machine's network cards: hardware addresses that stay with the copy, what cloud-init is told of them, and
//! the addresses that the guest has, as far as the node knows. Pure but for the look at the neighbour table.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use hostler_model::AssignmentId;
use hostler_model::spec::{VmNetwork, VmSpec, prefixed};

use super::record::Nic;

/// What QEMU's own network hands to its only guest.
const USER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15));
/// What is assumed where an address is told without the length of its prefix.
const USUAL_PREFIX: (u8, u8) = (24, 64);

/// A network card of a running machine, as far as the node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub mac: String,
    /// The node's bridge; none on a `user` network.
    pub bridge: Option<String>,
    /// Unknown until the guest has spoken to the node, or where nobody told.
    pub address: Option<IpAddr>,
}

/// The cards that the spec asks for.
pub(super) fn cards(vm: &VmSpec, assignment: AssignmentId) -> Vec<Nic> {
    let usual = [VmNetwork::default()];
    let networks = match vm.networks.as_slice() {
        [] => usual.as_slice(),
        networks => networks,
    };
    let card = |(number, network): (usize, &VmNetwork)| {
        let address = network.ip.as_deref().and_then(prefixed);
        let address = address.map(|(address, prefix)| {
            let usual = if address.is_ipv4() {
                USUAL_PREFIX.0
            } else {
                USUAL_PREFIX.1
            };
            (address, prefix.unwrap_or(usual))
        });
        Nic {
            mac: network.mac.clone().map_or_else(
                || mac_of(assignment, number),
                |mac| mac.to_ascii_lowercase(),
            ),
            bridge: network.bridge.clone(),
            address,
            gateway: network.gateway.as_deref().and_then(|it| it.parse().ok()),
            does_ask: network.dhcp || address.is_none(),
        }
    };
    networks.iter().enumerate().map(card).collect()
}

/// Locally administered, and the same for every generation.
fn mac_of(assignment: AssignmentId, number: usize) -> String {
    let sum = fnv(format!("{assignment}/{number}").as_bytes());
    let [.., a, b, c, d] = sum.to_be_bytes();
    format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// FNV-1a of 64 bits. Names of files and hardware addresses follow from it, so it never changes.
pub(super) fn fnv(bytes: &[u8]) -> u64 {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of few bytes say little.
    sum ^ (sum >> 29)
}

/// The cards in the words of cloud-init's network configuration, version 2.
pub(super) fn configuration(nics: &[Nic]) -> String {
    let mut text = String::from("version: 2\nethernets:\n");
    for (number, nic) in nics.iter().enumerate() {
        text += &format!(
            "  net{number}:\n    match:\n      macaddress: \"{}\"\n    dhcp4: {}\n",
            nic.mac, nic.does_ask
        );
        if let Some((address, prefix)) = nic.address {
            text += &format!("    addresses:\n      - \"{address}/{prefix}\"\n");
        }
        if let Some(gateway) = nic.gateway {
            let all = if gateway.is_ipv4() {
                "0.0.0.0/0"
            } else {
                "::/0"
            };
            text += &format!("    routes:\n      - to: \"{all}\"\n        via: \"{gateway}\"\n");
        }
    }
    text
}

/// The cards with the addresses that are known.
pub(super) fn interfaces(nics: &[Nic]) -> Vec<Interface> {
    let neighbours = fs::read_to_string("/proc/net/arp").unwrap_or_default();
    nics.iter().map(|nic| interface(nic, &neighbours)).collect()
}

fn interface(nic: &Nic, neighbours: &str) -> Interface {
    let address = match (&nic.bridge, nic.address) {
        (_, Some((address, _))) => Some(address),
        (None, None) => Some(USER_ADDRESS),
        (Some(bridge), None) => neighbour(neighbours, bridge, &nic.mac),
    };
    Interface {
        mac: nic.mac.clone(),
        bridge: nic.bridge.clone(),
        address,
    }
}

/// Columns as in proc(5): address, type, flags, hardware address, mask, device. An entry without the flag for
/// "complete" is a question that nobody has answered.
fn neighbour(table: &str, bridge: &str, mac: &str) -> Option<IpAddr> {
    const COMPLETE: u32 = 2;
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, flags, of, _, device] = columns.as_slice() else {
            return None;
        };
        let flags = u32::from_str_radix(flags.strip_prefix("0x")?, 16).ok()?;
        let fits = *device == bridge && of.eq_ignore_ascii_case(mac) && flags & COMPLETE != 0;
        fits.then(|| address.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(bridge: &str, ip: Option<&str>) -> VmNetwork {
        VmNetwork {
            bridge: Some(bridge.to_owned()),
            ip: ip.map(str::to_owned),
            gateway: ip.map(|_| "10.0.0.1".to_owned()),
            ..VmNetwork::default()
        }
    }

    fn vm(networks: Vec<VmNetwork>) -> VmSpec {
        VmSpec {
            networks,
            ..VmSpec::default()
        }
    }

    #[test]
    fn a_copy_keeps_its_hardware_addresses_and_each_card_has_its_own() {
        let vm = vm(vec![VmNetwork::default(), on("br0", None)]);
        let nics = cards(&vm, AssignmentId::LEAST);
        assert_eq!(nics, cards(&vm, AssignmentId::LEAST));
        assert_ne!(nics[0].mac, nics[1].mac);
        let other = AssignmentId::mint(hostler_model::Timestamp::from_millis(5), 7);
        assert_ne!(nics[0].mac, cards(&vm, other)[0].mac);
        for nic in &nics {
            assert!(
                nic.mac.starts_with("52:54:") && nic.mac.len() == 17,
                "{}",
                nic.mac
            );
        }
        let none = VmSpec::default();
        assert_eq!(cards(&none, AssignmentId::LEAST).len(), 1, "one is usual");
    }

    #[test]
    fn cloud_init_is_told_of_every_card() {
        let mut nics = cards(
            &vm(vec![on("br0", Some("10.0.0.5")), on("br1", None)]),
            AssignmentId::LEAST,
        );
        nics[0].mac = "52:54:00:00:00:01".to_owned();
        nics[1].mac = "52:54:00:00:00:02".to_owned();
        let expected = "\
version: 2
ethernets:
  net0:
    match:
      macaddress: \"52:54:00:00:00:01\"
    dhcp4: false
    addresses:
      - \"10.0.0.5/24\"
    routes:
      - to: \"0.0.0.0/0\"
        via: \"10.0.0.1\"
  net1:
    match:
      macaddress: \"52:54:00:00:00:02\"
    dhcp4: true
";
        assert_eq!(configuration(&nics), expected);
    }

    #[test]
    fn addresses_are_told_where_they_are_known() {
        let mut nics = cards(
            &vm(vec![
                VmNetwork::default(),
                on("br0", Some("10.0.0.5")),
                on("br0", None),
            ]),
            AssignmentId::LEAST,
        );
        nics[2].mac = "52:54:00:00:00:02".to_owned();
        let table = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.8         0x1         0x2         52:54:00:00:00:02     *        br1
10.0.0.9         0x1         0x0         52:54:00:00:00:02     *        br0
10.0.0.7         0x1         0x2         52:54:00:00:00:02     *        br0
";
        let known = |table: &str| -> Vec<Option<String>> {
            let of = |nic| interface(nic, table).address.map(|it| it.to_string());
            nics.iter().map(of).collect()
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            known(table),
            [text("10.0.2.15"), text("10.0.0.5"), text("10.0.0.7")]
        );
        assert_eq!(known("")[2], None);
    }
}
