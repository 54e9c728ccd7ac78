//! What the node's owner lets the fleet run here: the guard file. The control plane cannot override it. (The guard
//! against mass stops, `guard`, is another thing.)
//!
//! The judgement is pure. It holds for what is new: what runs already goes on, and is judged when it is made anew.
//! Without a file, everything is let but privileged containers and capabilities beyond those that engines give by
//! themselves.

mod file;

use std::path::{Component, Path, PathBuf};

use hostler_model::spec::{Capabilities, ContainerSpec, Kind, VmSpec, WorkloadSpec};
use hostler_model::{ExecCommand, Task};
use hostler_runtime::Asks;
use serde::Deserialize;

pub use file::GuardFile;
pub(crate) use file::{Bench, Guardian};

/// The kinds that a file which names none lets: those that were always judged in full. Projects and machines have to
/// be named, and are judged by what they ask for then, too.
const JUDGED_IN_FULL: [Kind; 2] = [Kind::Process, Kind::Container];

/// What engines give containers by themselves.
const USUAL_CAPABILITIES: &str = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW \
    SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";

/// The owner's rules. A list that is left out lets everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Permit {
    kinds: Option<Vec<Kind>>,
    /// Patterns: `*` is anything but `/`, `**` is anything.
    images: Option<Vec<String>>,
    /// Patterns of users, as specs name them.
    users: Option<Vec<String>>,
    /// Directories below which sources of mounts may lie.
    mounts: Option<Vec<PathBuf>>,
    /// Patterns of the names of engines' volumes that are not a project's own. Where this is left out, a list of
    /// `mounts` lets none: nobody knows what is in them.
    volumes: Option<Vec<String>>,
    privileged: bool,
    /// Whether containers that the fleet did not make may become its own.
    adopt: bool,
    /// Beyond the usual ones, which are always let; `ALL` is all.
    capabilities: Vec<String>,
    /// Patterns.
    devices: Option<Vec<String>>,
    /// Patterns; who names no network is in `bridge`.
    networks: Option<Vec<String>>,
    /// What may be done inside what runs.
    inside: Option<Vec<Inside>>,
}

/// One kind of errand each, by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Inside {
    Exec,
    Forward,
    Copy,
}

impl Inside {
    const fn of(task: &Task) -> Self {
        match task {
            Task::Exec(_) => Self::Exec,
            Task::Forward { .. } => Self::Forward,
            Task::ReadFiles { .. } | Task::WriteFiles { .. } => Self::Copy,
        }
    }
}

/// A rule that does not let it, in a sentence.
type Refusal = String;

impl Permit {
    /// The rules of a node whose owner has written none.
    pub(crate) fn unwritten() -> Self {
        Self {
            kinds: Some(Kind::ALL.to_vec()),
            adopt: true,
            ..Self::default()
        }
    }

    /// Whether the rules need to know where paths lead.
    pub(crate) const fn needs_paths(&self) -> bool {
        self.mounts.is_some() || self.devices.is_some() || self.images.is_some()
    }

    /// Judges a spec. `real` says where a path of the node leads, links followed.
    pub(crate) fn judge(
        &self,
        spec: &WorkloadSpec,
        real: impl Fn(&Path) -> PathBuf,
    ) -> Result<(), Refusal> {
        let kind = spec.kind();
        let kinds = self.kinds.as_deref().unwrap_or(&JUDGED_IN_FULL);
        if !kinds.contains(&kind) {
            return Err(refused("kinds", format!("it lets no {kind} workloads")));
        }
        if let Some(process) = &spec.process {
            self.judge_user(process.user.as_deref())?;
        }
        if spec.container.as_ref().is_some_and(|it| it.adopt.is_some()) && !self.adopt {
            let sentence = "it lets nothing be adopted that the fleet did not make";
            return Err(refused("adopt", sentence.to_owned()));
        }
        match (&spec.container, &spec.vm) {
            (Some(container), _) => self.judge_asks(&asks_of(container), real),
            (None, Some(vm)) => self.judge_vm(vm, real),
            (None, None) => Ok(()),
        }
    }

    /// Judges what is to be done inside something that runs.
    pub(crate) fn judge_task(&self, task: &Task) -> Result<(), Refusal> {
        let inside = Inside::of(task);
        if self.inside.as_ref().is_some_and(|it| !it.contains(&inside)) {
            let word = format!("{inside:?}").to_lowercase();
            return Err(refused("inside", format!("it lets no {word}")));
        }
        match task {
            // Whoever names no user is the unit's, which was judged.
            Task::Exec(ExecCommand {
                user: Some(user), ..
            }) => self.judge_user(Some(user)),
            _ => Ok(()),
        }
    }

    /// Judges what one container asks for.
    pub(crate) fn judge_asks(
        &self,
        asks: &Asks,
        real: impl Fn(&Path) -> PathBuf,
    ) -> Result<(), Refusal> {
        match &asks.image {
            Some(image) => self.judge_image(image)?,
            None => listed("images", &self.images, "an image that the node builds")?,
        }
        self.judge_user(asks.user.as_deref())?;
        if asks.privileged && !self.privileged {
            return Err(refused(
                "privileged",
                "it lets no privileged containers".to_owned(),
            ));
        }
        for name in &asks.capabilities {
            self.judge_capability(name)?;
        }
        for mount in &asks.mounts {
            self.judge_mount(mount, &real)?;
        }
        for volume in &asks.volumes {
            self.judge_volume(volume)?;
        }
        for device in &asks.devices {
            leads_to_listed("devices", &self.devices, device, &real)?;
        }
        for network in &asks.networks {
            listed("networks", &self.networks, network)?;
        }
        Ok(())
    }

    fn judge_image(&self, image: &str) -> Result<(), Refusal> {
        let Some(images) = &self.images else {
            return Ok(());
        };
        let names = names_of(image);
        let is_named = |pattern: &String| names.iter().any(|name| is_like(pattern, name));
        if images.iter().any(is_named) {
            return Ok(());
        }
        let images = images.join(", ");
        Err(refused(
            "images",
            format!("image `{image}` is none of {images}"),
        ))
    }

    /// Images by their names and, where they are paths, by where they lie; bridges as networks. A guest without a
    /// bridge is in `user`.
    fn judge_vm(&self, vm: &VmSpec, real: impl Fn(&Path) -> PathBuf) -> Result<(), Refusal> {
        let of_disks = vm.disks.iter().filter_map(|disk| disk.image.as_ref());
        let boot = [&vm.kernel, &vm.initrd].into_iter().flatten();
        let files = std::iter::once(&vm.image).chain(boot).chain(of_disks);
        for file in files.filter(|file| !file.is_empty()) {
            let name = file.strip_prefix("file://").unwrap_or(file);
            leads_to_listed("images", &self.images, name, &real)?;
            if name.starts_with('/') {
                self.judge_mount(name, &real)?;
            }
        }
        let bridges = vm
            .networks
            .iter()
            .map(|it| it.bridge.as_deref().unwrap_or("user"));
        for network in bridges.chain(vm.networks.is_empty().then_some("user")) {
            listed("networks", &self.networks, network)?;
        }
        Ok(())
    }

    fn judge_user(&self, user: Option<&str>) -> Result<(), Refusal> {
        match (&self.users, user) {
            (None, _) => Ok(()),
            (Some(users), None) => {
                let users = users.join(", ");
                Err(refused(
                    "users",
                    format!("the spec names no user, and it lets only {users}"),
                ))
            }
            (Some(_), Some(user)) => listed("users", &self.users, user),
        }
    }

    fn judge_capability(&self, name: &str) -> Result<(), Refusal> {
        let plain = Capabilities::plain(name);
        let named = self
            .capabilities
            .iter()
            .map(|name| Capabilities::plain(name));
        let is_let = USUAL_CAPABILITIES.split_whitespace().any(|it| it == plain)
            || named.into_iter().any(|it| it == "ALL" || it == plain);
        if is_let {
            return Ok(());
        }
        Err(refused("capabilities", format!("it does not let `{name}`")))
    }

    fn judge_mount(&self, source: &str, real: impl Fn(&Path) -> PathBuf) -> Result<(), Refusal> {
        let Some(mounts) = &self.mounts else {
            return Ok(());
        };
        let place = real(Path::new(source));
        let is_place = source.starts_with('/') && !goes_up(&place);
        if is_place && mounts.iter().any(|allowed| place.starts_with(allowed)) {
            return Ok(());
        }
        let allowed: Vec<_> = mounts.iter().map(|it| it.display().to_string()).collect();
        let sentence = format!("`{source}` lies in none of {}", allowed.join(", "));
        Err(refused("mounts", sentence))
    }

    fn judge_volume(&self, name: &str) -> Result<(), Refusal> {
        if self.volumes.is_none() && self.mounts.is_some() {
            let sentence = format!("it names no volumes of others, and `{name}` may be one");
            return Err(refused("volumes", sentence));
        }
        listed("volumes", &self.volumes, name)
    }
}

fn asks_of(container: &ContainerSpec) -> Asks {
    let network = container.network.as_deref().unwrap_or("bridge");
    let sources = container.mounts.iter().map(|it| it.source.clone());
    // What is no path is the name of a volume.
    let (mounts, volumes) = sources.partition(|source| source.starts_with(['/', '.', '~']));
    Asks {
        image: Some(container.image.clone()),
        user: container.user.clone(),
        privileged: container.privileged,
        capabilities: container.capabilities.add.clone(),
        mounts,
        volumes,
        devices: container
            .devices
            .iter()
            .map(|it| it.source.clone())
            .collect(),
        networks: vec![network.to_owned()],
    }
}

fn listed(rule: &str, patterns: &Option<Vec<String>>, name: &str) -> Result<(), Refusal> {
    match patterns {
        Some(patterns) if !patterns.iter().any(|pattern| is_like(pattern, name)) => {
            let patterns = patterns.join(", ");
            Err(refused(rule, format!("`{name}` is none of {patterns}")))
        }
        _ => Ok(()),
    }
}

/// As [`listed`]; a path is judged by where it leads, and patterns cannot tell what `..` makes of one.
fn leads_to_listed(
    rule: &str,
    patterns: &Option<Vec<String>>,
    name: &str,
    real: impl Fn(&Path) -> PathBuf,
) -> Result<(), Refusal> {
    let path = Path::new(name);
    if patterns.is_none() || !path.is_absolute() {
        return listed(rule, patterns, name);
    }
    if goes_up(path) {
        return Err(refused(rule, format!("`{name}` has a `..` in it")));
    }
    listed(rule, patterns, &real(path).to_string_lossy())
}

fn goes_up(path: &Path) -> bool {
    path.components().any(|it| it == Component::ParentDir)
}

fn refused(rule: &str, sentence: String) -> Refusal {
    format!("the node's guard file, rule `{rule}`: {sentence}")
}

/// The names by which an owner may mean an image: as written and in full, each also without its tag or digest.
fn names_of(image: &str) -> [String; 4] {
    let bare = |image: &str| {
        let image = image.split('@').next().unwrap_or(image);
        match image.rsplit_once(':') {
            // A port is no tag.
            Some((name, tag)) if !tag.contains('/') => name.to_owned(),
            _ => image.to_owned(),
        }
    };
    let first = image.split_once('/').map(|(first, _)| first);
    let full = match first {
        Some(first) if first.contains(['.', ':']) || first == "localhost" => image.to_owned(),
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    };
    [bare(image), bare(&full), image.to_owned(), full]
}

/// Whether the text is as the pattern says: `*` is anything but `/`, `**` is anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(rest) = text.strip_prefix(before) else {
        return false;
    };
    let (crosses, after) = match after.strip_prefix('*') {
        Some(after) => (true, after),
        None => (false, after),
    };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.take_while(|end| crosses || !rest[..*end].contains('/'))
        .any(|end| is_like(after, &rest[end..]))
}

#[cfg(test)]
mod tests {
    use hostler_model::spec::parse_one;

    use super::*;

    fn judged(rules: &str, section: &str) -> String {
        let permit: Permit = toml::from_str(rules).unwrap();
        let spec = parse_one(&format!("name: x\n{section}\n")).unwrap();
        // A link of a workload's own that leads elsewhere.
        let real = |path: &Path| match path.strip_prefix("/srv/link") {
            Ok(rest) => Path::new("/etc").join(rest),
            Err(_) => path.to_owned(),
        };
        permit.judge(&spec, real).err().unwrap_or_default()
    }

    #[test]
    fn each_rule_lets_what_it_names_and_refuses_the_rest_by_its_name() {
        for (rules, allowed, refused) in [
            (
                "kinds = ['container']",
                "container: {image: a}",
                "process: {command: [a]}",
            ),
            (
                "images = ['reg.example/*']",
                "container: {image: reg.example/web:1}",
                "container: {image: reg.example/a/b}",
            ),
            (
                "images = ['reg.example/**']",
                "container: {image: reg.example/a/b}",
                "container: {image: reg.examples/a}",
            ),
            (
                "images = ['busybox*']",
                "container: {image: 'busybox:1'}",
                "container: {image: busybox.evil.example/x}",
            ),
            (
                "images = ['docker.io/library/*']",
                "container: {image: busybox}",
                "container: {image: team/web}",
            ),
            (
                "images = ['h:5000/web']",
                "container: {image: 'h:5000/web:2'}",
                "container: {image: 'h:5000/other'}",
            ),
            (
                "users = ['1000', 'app:*']",
                "container: {image: a, user: 'app:staff'}",
                "container: {image: a, user: '0'}",
            ),
            (
                "users = ['1000']",
                "container: {image: a, user: '1000'}",
                "container: {image: a, user: '1000:0'}",
            ),
            (
                "users = ['1000']",
                "process: {command: [a], user: '1000'}",
                "process: {command: [a]}",
            ),
            (
                "users = ['1000']",
                "process: {command: [a], user: '1000'}",
                "container: {image: a}",
            ),
            (
                "privileged = true",
                "container: {image: a, privileged: true}",
                "compose: {file: x}",
            ),
            (
                "privileged = false",
                "container: {image: a}",
                "container: {image: a, privileged: true}",
            ),
            (
                "adopt = true",
                "container: {image: a, adopt: web}",
                "compose: {file: x}",
            ),
            (
                "adopt = false",
                "container: {image: a}",
                "container: {image: a, adopt: web}",
            ),
            (
                "capabilities = ['NET_ADMIN']",
                "container: {image: a, capabilities: {add: [cap_net_admin, CHOWN]}}",
                "container: {image: a, capabilities: {add: [SYS_ADMIN]}}",
            ),
            (
                "capabilities = ['NET_ADMIN']",
                "container: {image: a, capabilities: {drop: [ALL]}}",
                "container: {image: a, capabilities: {add: [ALL]}}",
            ),
            (
                "mounts = ['/srv']",
                "container: {image: a, mounts: [{source: /srv/www, target: /w}]}",
                "container: {image: a, mounts: [{source: /srvice, target: /w}]}",
            ),
            (
                "mounts = ['/srv']",
                "container: {image: a, tmpfs: [{target: /t}]}",
                "container: {image: a, mounts: [{source: /srv/../etc, target: /w}]}",
            ),
            (
                "mounts = ['/srv']",
                "container: {image: a}",
                "container: {image: a, mounts: [{source: /srv/link/shadow, target: /w}]}",
            ),
            (
                "volumes = ['shop_*']",
                "container: {image: a, mounts: [{source: shop_data, target: /d}]}",
                "container: {image: a, mounts: [{source: other_data, target: /d}]}",
            ),
            (
                "mounts = []",
                "container: {image: a}",
                "container: {image: a, mounts: [{source: /srv, target: /w}]}",
            ),
            (
                "devices = ['/dev/dri/*']",
                "container: {image: a, devices: [{source: /dev/dri/card0}]}",
                "container: {image: a, devices: [{source: /dev/sda}]}",
            ),
            (
                "devices = ['/dev/dri/**']",
                "container: {image: a, devices: [{source: /dev/dri/by-path/x}]}",
                "container: {image: a, devices: [{source: /dev/dri/../sda}]}",
            ),
            (
                "devices = ['/srv/**']",
                "container: {image: a, devices: [{source: /srv/x}, {source: /srv/y}]}",
                "container: {image: a, devices: [{source: /srv/link/sda}]}",
            ),
            (
                "networks = ['bridge', 'none']",
                "container: {image: a}",
                "container: {image: a, network: host}",
            ),
            (
                "networks = ['none']",
                "container: {image: a, network: none}",
                "container: {image: a}",
            ),
        ] {
            assert_eq!(judged(rules, allowed), "", "{rules}");
            let told = judged(rules, refused);
            let rule = if refused.starts_with("compose") {
                "kinds"
            } else {
                rules.split(' ').next().unwrap()
            };
            assert!(
                told.contains(&format!("rule `{rule}`")),
                "{rules}, {refused}: {told:?}"
            );
        }
    }

    #[test]
    fn a_machine_is_judged_by_its_images_and_its_bridges() {
        let judged = |rules: &str, vm: &str| {
            judged(
                &format!("kinds = ['vm']\n{rules}"),
                &format!("vm: {{{vm}}}"),
            )
        };
        assert_eq!(judged("images = ['debian*']", "image: debian-12"), "");
        assert!(judged("images = ['debian*']", "image: fedora").contains("rule `images`"));
        for path in ["/srv/../etc/shadow", "/srv/link/shadow"] {
            let vm = format!("image: {path}");
            let told = judged("images = ['/srv/**']", &vm);
            assert!(told.contains("rule `images`"), "{path}: {told}");
        }
        assert_eq!(judged("mounts = ['/srv']", "image: /srv/a.img"), "");
        for vm in [
            "image: /etc/a.img",
            "image: 'file:///etc/a'",
            "image: x, kernel: /boot/k",
        ] {
            assert!(
                judged("mounts = ['/srv']", vm).contains("rule `mounts`"),
                "{vm}"
            );
        }
        let disk = "image: x, disks: [{image: /etc/shadow}]";
        assert!(judged("mounts = ['/srv']", disk).contains("rule `mounts`"));
        let bridged = "image: x, networks: [{bridge: br0}]";
        assert!(judged("networks = ['user']", bridged).contains("rule `networks`"));
        assert_eq!(judged("networks = ['user']", "image: x"), "");
    }

    #[test]
    fn what_is_done_inside_is_let_as_listed_and_by_no_other_user() {
        let judged = |rules: &str, task: &Task| {
            let permit: Permit = toml::from_str(rules).unwrap();
            permit.judge_task(task).err().unwrap_or_default()
        };
        let exec = |user: Option<&str>| {
            Task::Exec(ExecCommand {
                user: user.map(str::to_owned),
                ..ExecCommand::default()
            })
        };
        let path = "/".to_owned();
        let tasks = [
            exec(None),
            Task::Forward { port: 1 },
            Task::ReadFiles { path: path.clone() },
            Task::WriteFiles { path },
        ];
        for (index, task) in tasks.iter().enumerate() {
            assert_eq!(judged("", task), "");
            assert!(judged("inside = []", task).contains("rule `inside`"));
            let forwards = judged("inside = ['forward']", task).is_empty();
            assert_eq!(forwards, index == 1, "{task:?}");
            let copies = judged("inside = ['copy']", task).is_empty();
            assert_eq!(copies, index > 1, "{task:?}");
        }
        assert_eq!(judged("users = ['1000']", &exec(None)), "");
        assert_eq!(judged("users = ['1000']", &exec(Some("1000"))), "");
        assert!(judged("users = ['1000']", &exec(Some("0"))).contains("rule `users`"));
        assert!(toml::from_str::<Permit>("inside = ['everything']").is_err());
    }

    #[test]
    fn volumes_of_others_are_let_by_name_and_by_no_list_of_directories() {
        let judged = |rules: &str| {
            let permit: Permit = toml::from_str(rules).unwrap();
            let asks = Asks {
                image: Some("a".to_owned()),
                volumes: vec!["theirs_data".to_owned()],
                ..Asks::default()
            };
            let judged = permit.judge_asks(&asks, Path::to_owned);
            judged.err().unwrap_or_default()
        };
        assert_eq!(judged(""), "");
        for rules in ["mounts = ['/']", "volumes = []", "volumes = ['ours_*']"] {
            assert!(judged(rules).contains("rule `volumes`"), "{rules}");
        }
        assert_eq!(judged("mounts = []\nvolumes = ['theirs_*']"), "");
        assert_eq!(judged("volumes = ['**']"), "");
    }

    #[test]
    fn kinds_that_are_not_judged_in_full_have_to_be_named() {
        for section in [
            "compose: {file: x}",
            "vm: {image: /a}",
            "job: {command: [a]}",
        ] {
            assert!(judged("", section).contains("rule `kinds`"), "{section}");
        }
        assert_eq!(judged("kinds = ['compose']", "compose: {file: x}"), "");
    }

    #[test]
    fn without_a_file_only_what_makes_one_root_of_the_node_is_refused() {
        let judged = |section: &str| {
            let spec = parse_one(&format!("name: x\n{section}\n")).unwrap();
            Permit::unwritten()
                .judge(&spec, Path::to_owned)
                .err()
                .unwrap_or_default()
        };
        for section in [
            "process: {command: [a]}",
            "compose: {file: x}",
            "vm: {image: /a}",
            "container: {image: a, user: root, network: host, mounts: [{source: /, target: /w}]}",
            "container: {image: a, adopt: web}",
            "container: {image: a, devices: [{source: /dev/kvm}], capabilities: {add: [CHOWN]}}",
        ] {
            assert_eq!(judged(section), "", "{section}");
        }
        assert!(judged("container: {image: a, privileged: true}").contains("rule `privileged`"));
        let capable = "container: {image: a, capabilities: {add: [SYS_ADMIN]}}";
        assert!(judged(capable).contains("rule `capabilities`"));
    }
}
