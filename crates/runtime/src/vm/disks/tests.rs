//! Disks with a `qemu-img` that is a script: it writes down what it is told, and knows images by their name.

use std::os::unix::fs::PermissionsExt as _;

use hostler_model::Bytes;

use super::*;

/// Keeps what it was told in `calls`. A file is an image: its first line is the format, its second the size.
/// One with the word `damaged` in it fails its check, one without a format is none.
const TOOL: &str = r#"#!/bin/sh
here=$(dirname "$0")
echo "$@" | sed "s#$here#.#g" >> "$here/calls"
for last; do :; done
case $1 in
  info)
    format=$(sed -n 1p "$last"); size=$(sed -n 2p "$last")
    [ -n "$size" ] || { echo "no image" >&2; exit 1; }
    echo "{\"format\": \"$format\", \"virtual-size\": $size}" ;;
  check) if grep -q damaged "$last"; then echo "ERROR cluster 7" >&2; exit 2; fi; exit 63 ;;
  create)
    [ -e "$here/full" ] && { echo "it fails" >&2; exit 1; }
    case "$*" in
      *-b*) file=$9; size=${10} ;;
      *) file=$5; size=$6 ;;
    esac
    printf '%s\n%s\n' "$4" "$size" > "$file" ;;
  convert) cp "$7" "$8"; sed -i 1s/.*/raw/ "$8" ;;
  resize) sed -i "2s/.*/$6/" "$5" ;;
esac
"#;

struct Lab {
    home: tempfile::TempDir,
    images: Images,
    tool: QemuImg,
}

impl Lab {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let tool = home.path().join("qemu-img");
        fs::write(&tool, TOOL).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            images: Images::new(vec![home.path().to_owned()], false),
            tool: QemuImg::new(tool.display().to_string()),
            home,
        }
    }

    fn image(&self, name: &str, text: &str) {
        fs::write(self.home.path().join(name), text).unwrap();
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("disks")
    }

    async fn make(&self, vm: &VmSpec) -> Result<Vec<Disk>, RuntimeError> {
        make(plan(vm, &self.images)?, &self.dir(), &self.tool).await
    }

    /// What the tool was told since the last look, without the looks at images.
    fn calls(&self) -> Vec<String> {
        let path = self.home.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        let looks = ["info", "check"];
        let is_deed = |call: &&str| !looks.iter().any(|look| call.starts_with(look));
        calls.lines().filter(is_deed).map(str::to_owned).collect()
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir()) else {
            return Vec::new();
        };
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<String> = entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn disk(size: u64) -> VmDisk {
    VmDisk {
        size: Some(Bytes(size)),
        ..VmDisk::default()
    }
}

fn with(image: &str, disks: Vec<VmDisk>) -> VmSpec {
    VmSpec {
        image: image.to_owned(),
        disks,
        ..VmSpec::default()
    }
}

fn targets(disks: &[Disk]) -> Vec<(&str, Option<u32>)> {
    let names = disks.iter().map(|disk| disk.target.as_str());
    names.zip(disks.iter().map(|disk| disk.boot)).collect()
}

#[tokio::test]
async fn each_disk_is_made_once_and_images_are_only_referred_to() {
    let lab = Lab::new();
    lab.image("debian.qcow2", "qcow2\n1000\n");
    lab.image("tools.iso", "raw\n50\n");
    let raw = VmDisk {
        format: DiskFormat::Raw,
        target: Some("/srv/data".to_owned()),
        image: Some("debian".to_owned()),
        size: Some(Bytes(3000)),
        ..VmDisk::default()
    };
    let cdrom = VmDisk {
        media: DiskMedia::Cdrom,
        image: Some("tools.iso".to_owned()),
        ..VmDisk::default()
    };
    let vm = with("debian", vec![disk(2000), raw, cdrom]);
    let made = lab.make(&vm).await.unwrap();
    assert_eq!(
        targets(&made),
        [
            ("vda", Some(1)),
            ("vdb", None),
            ("/srv/data", None),
            ("sra", None)
        ]
    );
    assert_eq!(
        lab.calls(),
        [
            "create -q -f qcow2 -F qcow2 -b ./debian.qcow2 ./disks/vda-debian-ab12efe8.new 1000",
            "create -q -f qcow2 ./disks/vdb.new 2000",
            "convert -q -f qcow2 -O raw ./debian.qcow2 ./disks/-srv-data-3d446ac0-debian-ab12efe8.new",
            "resize -q -f raw ./disks/-srv-data-3d446ac0-debian-ab12efe8.new 3000",
        ]
    );
    let files = lab.files();
    assert_eq!(files.len(), 3, "{files:?}");
    assert!(
        files.iter().all(|name| !name.ends_with(".new")),
        "{files:?}"
    );
    assert!(made[3].is_cdrom && made[3].path.ends_with("tools.iso"));

    assert_eq!(
        lab.make(&vm).await.unwrap(),
        made,
        "the next generation finds them"
    );
    assert_eq!(lab.calls(), [""; 0]);
    let debian = fs::read_to_string(lab.home.path().join("debian.qcow2")).unwrap();
    assert_eq!(debian, "qcow2\n1000\n");
}

#[tokio::test]
async fn another_image_begins_another_disk_and_going_back_finds_the_first() {
    let lab = Lab::new();
    lab.image("old.raw", "raw\n10\n");
    lab.image("new.raw", "raw\n10\n");
    let first = lab.make(&with("old", Vec::new())).await.unwrap();
    let second = lab.make(&with("new", Vec::new())).await.unwrap();
    assert_ne!(first[0].path, second[0].path);
    lab.calls();
    assert_eq!(lab.make(&with("old", Vec::new())).await.unwrap(), first);
    assert_eq!(lab.calls(), [""; 0]);
    delete(&lab.dir()).unwrap();
    delete(&lab.dir()).unwrap();
    assert_eq!(lab.files(), [""; 0]);
}

#[tokio::test]
async fn the_machines_image_is_that_of_vda_where_there_is_one() {
    let lab = Lab::new();
    lab.image("debian.qcow2", "qcow2\n1000\n");
    let boot = VmDisk {
        target: Some("vda".to_owned()),
        ..disk(5000)
    };
    let made = lab
        .make(&with("debian", vec![disk(10), boot]))
        .await
        .unwrap();
    assert_eq!(targets(&made), [("vdb", Some(1)), ("vda", None)]);
    assert!(lab.calls()[1].ends_with("5000"), "the larger size");
    let said = VmDisk {
        boot: true,
        ..disk(10)
    };
    let planned = plan(&with("", vec![disk(10), said]), &lab.images).unwrap();
    let orders: Vec<Option<u32>> = planned.iter().map(|disk| disk.boot).collect();
    assert_eq!(orders, [None, Some(1)]);
}

#[tokio::test]
async fn what_cannot_be_made_leaves_nothing_behind_and_has_its_code() {
    let lab = Lab::new();
    lab.image("damaged.qcow2", "qcow2\n1000\ndamaged\n");
    lab.image("nothing.qcow2", "");
    lab.image("large.qcow2", "qcow2\n9000\n");
    let small = |image: &str| VmDisk {
        image: Some(image.to_owned()),
        ..disk(2000)
    };
    let pooled = VmDisk {
        pool: Some("fast".to_owned()),
        ..disk(10)
    };
    for (disk_of, code) in [
        (small("damaged"), "image-corrupt"),
        (small("nothing"), "image-corrupt"),
        (small("large"), "disk-too-small"),
        (small("absent"), "image-not-found"),
        (small("http://x/y"), "image-elsewhere"),
        (pooled, "pool-unknown"),
    ] {
        let error = lab
            .make(&with("", vec![disk(10), disk_of]))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!lab.dir().exists(), "{code}: {:?}", lab.files());
    }
    let error = lab.make(&with("damaged", Vec::new())).await.unwrap_err();
    assert!(error.to_string().contains("ERROR cluster 7"), "{error}");

    lab.make(&with("", vec![disk(10)])).await.unwrap();
    lab.image("full", "");
    let error = lab
        .make(&with("", vec![disk(10), disk(10)]))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "node-io", "{error}");
    assert!(error.to_string().contains("it fails"), "{error}");
    assert_eq!(lab.files(), ["vda.qcow2"], "what was there before stays");

    let gone = QemuImg::new("/no/such/tool".to_owned());
    let wanted = plan(&with("", vec![disk(10), disk(10)]), &lab.images).unwrap();
    let error = make(wanted, &lab.dir(), &gone).await.unwrap_err();
    assert_eq!(error.code(), "command-not-runnable");
}

#[tokio::test]
async fn disks_are_looked_over_and_grow_before_a_start_and_never_shrink() {
    let lab = Lab::new();
    let made = lab.make(&with("", vec![disk(1000)])).await.unwrap();
    ready(&made, &lab.tool).await.unwrap();
    assert_eq!(lab.calls().len(), 1, "only the creation");
    let sized = |size| {
        vec![Disk {
            size,
            ..made[0].clone()
        }]
    };
    ready(&sized(10), &lab.tool).await.unwrap();
    ready(&sized(4000), &lab.tool).await.unwrap();
    assert_eq!(lab.calls(), ["resize -q -f qcow2 ./disks/vda.qcow2 4000"]);
    fs::write(&made[0].path, "qcow2\n4000\ndamaged\n").unwrap();
    let error = ready(&made, &lab.tool).await.unwrap_err();
    assert_eq!(error.code(), "disk-corrupt");
    fs::remove_file(&made[0].path).unwrap();
    let error = ready(&made, &lab.tool).await.unwrap_err();
    assert_eq!(error.code(), "disk-missing");
}
