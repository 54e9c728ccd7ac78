//! Users and groups of the machine, read from `/etc/passwd` and `/etc/group`.
//!
//! Users that only a directory service knows are named by number.

use std::fs;

/// As whom a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: Option<String>,
}

/// Finds `name`, `number`, `name:group` or `number:number`; the answer to a failure is a sentence.
pub(crate) fn resolve(user: &str) -> Result<Identity, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    resolve_in(user, &passwd, &group)
}

/// The home directory of a user by number.
pub(crate) fn home_of(uid: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    entry(&passwd, |fields| fields[2] == uid.to_string()).map(|fields| fields[5].to_owned())
}

/// The number of a group, by name or number; the answer to a failure is a sentence.
pub(crate) fn group(name: &str) -> Result<u32, String> {
    let group = fs::read_to_string("/etc/group").unwrap_or_default();
    group_in(name, &group).ok_or_else(|| no_group(name))
}

fn group_in(name: &str, group: &str) -> Option<u32> {
    let mut lines = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let found = lines.find(|fields| fields.len() > 2 && fields[0] == name);
    let number = |text: &str| text.parse().ok();
    found
        .and_then(|fields| number(fields[2]))
        .or_else(|| number(name))
}

fn no_group(name: &str) -> String {
    format!("there is no group `{name}` on the node")
}

fn resolve_in(user: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, of_group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (user, None),
    };
    let known = entry(passwd, |fields| fields[0] == user || fields[2] == user);
    let number = |text: &str| text.parse::<u32>().ok();
    let (uid, own_gid, home) = match known {
        Some(fields) => (
            number(fields[2]),
            number(fields[3]),
            Some(fields[5].to_owned()),
        ),
        None => (number(user), number(user), None),
    };
    let uid = uid.ok_or_else(|| format!("there is no user `{user}` on the node"))?;
    let gid = match of_group {
        None => own_gid,
        Some(name) => group_in(name, group),
    };
    let gid = gid.ok_or_else(|| match of_group {
        Some(name) => no_group(name),
        None => format!("user `{user}` has no group on the node"),
    })?;
    Ok(Identity { uid, gid, home })
}

fn entry<'a>(passwd: &'a str, fits: impl Fn(&[&'a str]) -> bool) -> Option<Vec<&'a str>> {
    let lines = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    lines
        .into_iter()
        .find(|fields| fields.len() > 6 && fits(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nweb:x:33:34:Web:/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:\n";

    #[test]
    fn names_and_numbers_are_found_and_strangers_are_refused() {
        let find = |user| resolve_in(user, PASSWD, GROUP).map(|it| (it.uid, it.gid, it.home));
        let www = Some("/var/www".to_owned());
        assert_eq!(find("web"), Ok((33, 34, www.clone())));
        assert_eq!(find("33:staff"), Ok((33, 50, www)));
        assert_eq!(find("1234"), Ok((1234, 1234, None)));
        assert_eq!(find("1234:5"), Ok((1234, 5, None)));
        assert_eq!(group_in("staff", GROUP), Some(50));
        assert_eq!(group_in("77", GROUP), Some(77));
        assert_eq!(group_in("strangers", GROUP), None);
        assert!(find("nobody-knows").unwrap_err().contains("nobody-knows"));
        assert!(find("web:strangers").unwrap_err().contains("strangers"));
    }
}
