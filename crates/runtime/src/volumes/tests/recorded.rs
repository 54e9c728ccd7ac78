//! The system's tools as recorded ones: a script under each of their names, which writes its words down, keeps its
//! state in files, and mounts by a link to where the data is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::ceph::{Ceph, CephSettings};
use super::super::nfs::{Nfs, NfsSettings};
use super::super::{Storage, Tools};

const NAMES: [&str; 6] = ["mount", "umount", "mount.nfs", "blkid", "mkfs.ext4", "rbd"];

const SCRIPT: &str = r#"#!/bin/sh
me=${0##*/}
echo "$me $*" >>"$state/calls"
for last; do :; done
# A kernel changes its mounts, and a cluster an image's metadata, all at once. A lock file goes with its process.
alone() { exec 9>"$state/lock" && flock 9; }
[ -e "$state/hang.$me" ] && [ "$1" != -f ] && exec sleep 1000
[ -e "$state/fail.$me" ] && { cat "$state/fail.$me" >&2; exit 32; }
case $me in
mount)
    shift 2
    [ "$1" = -o ] && shift 2
    case $1 in
    *:*) real=$state/server${1#*:} ;;
    *) real=$state/content/${1##*/} ;;
    esac
    alone
    [ -d "$real" ] || { echo "mounting $1 failed: no such directory" >&2; exit 32; }
    rmdir "$2" && ln -s "$real" "$2" || exit 32
    echo "1 1 0:1 / $2 rw - any any rw" >>"$state/mounts"
    ;;
umount)
    alone
    grep -v -F " $last " "$state/mounts" >"$state/mounts.new"
    mv "$state/mounts.new" "$state/mounts"
    rm "$last" && mkdir "$last"
    ;;
blkid)
    [ -e "$state/fs/${last##*/}" ] || exit 2
    cat "$state/fs/${last##*/}"
    ;;
mkfs.ext4)
    echo TYPE=ext4 >"$state/fs/${last##*/}"
    mkdir "$state/content/${last##*/}"
    ;;
rbd)
    [ "$1" = --id ] && shift 2
    name=${last##*/}
    case $1 in
    info) [ -e "$state/images/$name" ] || exit 2 ;;
    create) [ -e "$state/images/$name" ] && exit 17; mkdir "$state/images/$name" ;;
    image-meta)
        case $2 in list) name=${last##*/} ;; *) name=${3##*/} ;; esac
        of=$state/images/$name
        [ -e "$of" ] || exit 2
        alone
        case $2 in
        set)
            [ -e "$state/fail.set" ] && case $4 in "$(cat "$state/fail.set")"*) exit 5 ;; esac
            printf '%s' "$5" >"$of/$4"
            ;;
        remove) [ -e "$of/$4" ] || exit 2; rm "$of/$4" ;;
        list)
            # Of an image without any it says nothing at all.
            comma={
            for it in "$of"/*; do
                [ -e "$it" ] || continue
                printf '%s"%s":"%s"' "$comma" "${it##*/}" "$(sed 's/"/\\"/g' "$it")"
                comma=,
            done
            [ "$comma" = , ] && printf '}\n'
            true
            ;;
        esac
        ;;
    map)
        [ -e "$state/images/$name" ] || exit 2
        cat "$state/written/$name" >"$state/mapped/$name" 2>/dev/null ||
            head -c 4096 /dev/zero >"$state/mapped/$name"
        echo "$state/mapped/$name"
        ;;
    device)
        printf '['
        comma=
        for it in "$state"/mapped/*; do
            [ -e "$it" ] || continue
            printf '%s{"id":"0","pool":"rbd","namespace":"","name":"%s","snap":"-","device":"%s"}' \
                "$comma" "${it##*/}" "$it"
            comma=,
        done
        printf ']\n'
        ;;
    unmap) rm "$last" ;;
    rm)
        [ -e "$state/mapped/$name" ] && { echo 'image has watchers' >&2; exit 16; }
        rm -r "$state/images/$name"
        rm -rf "$state/fs/$name" "$state/content/$name"
        ;;
    esac
    ;;
esac
"#;

/// The tools and what they keep.
pub(super) struct Recorded {
    home: tempfile::TempDir,
    /// How long a tool may take.
    patience: Duration,
}

impl Recorded {
    /// Whose tools are given up soon.
    pub(super) fn hasty() -> Self {
        let patience = Duration::from_secs(5);
        Self {
            patience,
            ..Self::new()
        }
    }

    pub(super) fn new() -> Self {
        let recorded = Self {
            home: tempfile::tempdir().unwrap(),
            patience: Tools::default().patience,
        };
        let bin = recorded.path("bin");
        for dir in [
            "bin",
            "fs",
            "content",
            "images",
            "mapped",
            "written",
            "server/srv/volumes",
        ] {
            fs::create_dir_all(recorded.path(dir)).unwrap();
        }
        fs::write(recorded.path("mounts"), "").unwrap();
        fs::write(recorded.path("calls"), "").unwrap();
        let state = recorded.path("");
        let head = format!("#!/bin/sh\nstate={}", state.display());
        let script = SCRIPT.replacen("#!/bin/sh", &head, 1);
        for name in NAMES {
            let path = bin.join(name);
            fs::write(&path, &script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        recorded
    }

    fn path(&self, name: &str) -> PathBuf {
        let home = self.home.path().canonicalize().unwrap();
        if name.is_empty() {
            home
        } else {
            home.join(name)
        }
    }

    fn tools(&self) -> Tools {
        let mut path = self.path("bin").into_os_string();
        path.push(":/usr/bin:/bin");
        Tools {
            path,
            mounts: self.path("mounts"),
            patience: self.patience,
        }
    }

    pub(super) fn nfs(&self) -> Arc<dyn Storage> {
        self.nfs_of("stage")
    }

    /// As another node with the same server has it.
    pub(super) fn nfs_of(&self, stage: &str) -> Arc<dyn Storage> {
        let settings = NfsSettings {
            server: Some("files.lan".to_owned()),
            export: Some("/srv/volumes".to_owned()),
            options: Some("hard".to_owned()),
            stage_dir: None,
        };
        Arc::new(Nfs::new(settings, self.path(stage), self.tools()))
    }

    pub(super) fn ceph(&self) -> Arc<dyn Storage> {
        self.ceph_of("stage")
    }

    pub(super) fn ceph_of(&self, stage: &str) -> Arc<dyn Storage> {
        let settings = CephSettings {
            pool: Some("rbd".to_owned()),
            ..CephSettings::default()
        };
        Arc::new(Ceph::new(settings, self.path(stage), self.tools()))
    }

    /// What lies below the export of the server.
    pub(super) fn export(&self) -> PathBuf {
        self.path("server/srv/volumes")
    }

    /// The metadata of an image, if it is there.
    pub(super) fn image(&self, name: &str) -> PathBuf {
        self.path("images").join(name)
    }

    /// What was called, in order.
    pub(super) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap();
        let stage = self.path("stage").display().to_string();
        text.lines()
            .map(|line| line.replace(&stage, "<stage>"))
            .collect()
    }

    pub(super) fn mounted(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("mounts")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    pub(super) fn mapped(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("mapped")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    pub(super) fn write_partitions(&self, image: &str) {
        fs::write(self.path("fs").join(image), "PTTYPE=gpt\n").unwrap();
    }

    /// The image holds something that `blkid` does not know, or cannot read.
    pub(super) fn write_strange(&self, image: &str) {
        let _ = fs::remove_file(self.path("fs").join(image));
        fs::write(self.path("written").join(image), "kept").unwrap();
    }

    /// Lets a program fail with the words; `set`, whatever sets metadata that begins with them.
    pub(super) fn fail(&self, program: &str, with: Option<&str>) {
        let path = self.path(&format!("fail.{program}"));
        match with {
            Some(words) => fs::write(path, words).unwrap(),
            None => fs::remove_file(path).unwrap(),
        }
    }

    pub(super) fn hang(&self, program: &str, does: bool) {
        let path = self.path(&format!("hang.{program}"));
        if does {
            fs::write(path, "").unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }

    /// Nothing is mounted or mapped any more.
    pub(super) fn reboot(&self) {
        for line in self.mounted() {
            let at = line.split(' ').nth(4).unwrap();
            fs::remove_file(at).unwrap();
            fs::create_dir(at).unwrap();
        }
        fs::write(self.path("mounts"), "").unwrap();
        for device in self.mapped() {
            fs::remove_file(device).unwrap();
        }
    }
}
