use std::time::Duration;

use hostler_model::AssignmentId;
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
const BUDGET: Budget = Budget {
    start: 85,
    stop: 75,
    min_age: Duration::from_secs(3600),
    every: Duration::from_secs(300),
};

fn workload(n: u128) -> WorkloadId {
    WorkloadId::mint(NOW, n)
}

fn ago(minutes: u64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() - minutes * 60_000)
}

fn leftover(kind: LeftoverKind, name: &str, bytes: u64, used_at: Timestamp) -> Item {
    Item {
        what: What::Leftover {
            driver: Kind::Container,
            kind,
            name: name.to_owned(),
        },
        bytes,
        made_at: used_at,
        used_at,
        needed: None,
    }
}

fn image(name: &str, bytes: u64, minutes: u64) -> Item {
    leftover(LeftoverKind::Image, name, bytes, ago(minutes))
}

fn data(n: u128, whose: Option<u128>, minutes: u64) -> Item {
    let kind = LeftoverKind::Data {
        assignment: AssignmentId::mint(NOW, n),
        workload: whose.map(workload),
    };
    leftover(kind, "disks", 10, ago(minutes))
}

/// Of a hundred bytes so many are in use.
fn disk(used: u64) -> Option<Share> {
    Some(Share {
        free: 100 - used,
        total: 100,
    })
}

fn sorted(items: Vec<Item>, disk: Option<Share>, demand: Demand) -> Sorted {
    let unwanted = BTreeSet::from([workload(7)]);
    let rules = Rules {
        budget: &BUDGET,
        demand,
        unwanted: &unwanted,
        trusted_since: ago(1000),
        now: NOW,
    };
    sort(items, disk, &rules)
}

fn names(items: &[(Item, String)]) -> Vec<&str> {
    let name = |(item, _): &'_ (Item, String)| match &item.what {
        What::Leftover { name, .. } => name.clone().leak() as &str,
        What::Finished { .. } => "finished",
    };
    items.iter().map(name).collect()
}

#[test]
fn below_the_start_nothing_goes_and_from_there_on_the_oldest_go_until_there_is_room() {
    let images = || {
        vec![
            image("new", 9, 90),
            image("old", 9, 900),
            image("older", 6, 9000),
        ]
    };
    let calm = sorted(images(), disk(84), Demand::Budget);
    assert_eq!(calm.goes, []);
    assert!(
        calm.stays[0].1.contains("there is room"),
        "{:?}",
        calm.stays
    );
    let full = sorted(images(), disk(85), Demand::Budget);
    assert_eq!(
        names(&full.goes),
        ["older", "old"],
        "15 of the 10 that are too much"
    );
    assert_eq!(
        full.goes[0].1,
        "the disk is too full, and nothing needs it; of use 6 d ago"
    );
    assert_eq!(names(&full.stays), ["new"]);
    let unknown = sorted(images(), None, Demand::Budget);
    assert_eq!(unknown.goes, []);
}

#[test]
fn what_is_needed_or_was_just_used_stays_even_if_all_is_asked_for() {
    let needed = Item {
        needed: Some("a container uses it".to_owned()),
        ..image("needed", 9, 900)
    };
    let items = vec![needed, image("young", 9, 59), image("old", 9, 60)];
    let sorted = sorted(items, disk(99), Demand::All { data: true });
    assert_eq!(names(&sorted.goes), ["old"]);
    assert_eq!(sorted.stays[0].1, "a container uses it");
    assert_eq!(sorted.stays[1].1, "of use 59 min ago, and it stays for 1 h");
}

#[test]
fn data_goes_with_its_workload_or_when_asked_for_and_never_for_room() {
    let items = || {
        vec![
            data(1, Some(1), 900),
            data(2, Some(7), 900),
            data(3, None, 900),
        ]
    };
    let assignments = |sorted: &Sorted| {
        let of = |(item, _): &(Item, String)| match &item.what {
            What::Leftover {
                kind: LeftoverKind::Data { assignment, .. },
                ..
            } => (1..=3).find(|n| AssignmentId::mint(NOW, *n) == *assignment),
            _ => None,
        };
        sorted.goes.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(assignments(&sorted(items(), disk(99), Demand::Budget)), [2]);
    assert_eq!(
        assignments(&sorted(items(), disk(9), Demand::All { data: false })),
        [2]
    );
    assert_eq!(
        assignments(&sorted(items(), disk(9), Demand::All { data: true })),
        [1, 2]
    );
    let young = sorted(
        vec![data(2, Some(7), 1)],
        disk(99),
        Demand::All { data: true },
    );
    assert_eq!(young.goes, []);
    let older = sorted(vec![data(2, Some(7), 1001)], disk(99), Demand::Budget);
    assert_eq!(older.goes, [], "of a life before this control plane's");
}

#[test]
fn debris_goes_whatever_room_there_is_and_counts_for_the_goal() {
    let debris = leftover(LeftoverKind::Debris, "half", 11, ago(100));
    let sorted = sorted(vec![image("old", 1, 900), debris], disk(85), Demand::Budget);
    assert_eq!(names(&sorted.goes), ["half"]);
}

fn any_item() -> impl Strategy<Value = Item> {
    let kind = prop_oneof![
        Just(LeftoverKind::Image),
        Just(LeftoverKind::Debris),
        (0..3_u128, prop::option::of(6..9_u128)).prop_map(|(n, whose)| LeftoverKind::Data {
            assignment: AssignmentId::mint(NOW, n),
            workload: whose.map(workload),
        }),
        (6..9_u128).prop_map(|whose| LeftoverKind::Volume {
            workload: workload(whose)
        }),
        (6..9_u128).prop_map(|whose| LeftoverKind::SharedVolume {
            workload: workload(whose)
        }),
    ];
    let needed = prop::option::of(Just("something uses it".to_owned()));
    (kind, "[a-f]", 0..30_u64, 0..200_u64, needed).prop_map(
        |(kind, name, bytes, minutes, needed)| Item {
            needed,
            ..leftover(kind, &name, bytes, ago(minutes))
        },
    )
}

fn any_demand() -> impl Strategy<Value = Demand> {
    prop_oneof![
        Just(Demand::Budget),
        any::<bool>().prop_map(|data| Demand::All { data })
    ]
}

proptest! {
    #[test]
    fn nothing_that_is_needed_or_young_goes_and_every_thing_is_told_once(
        items in prop::collection::vec(any_item(), 0..30), used in 0..=100_u64, demand in any_demand(),
    ) {
        let sorted = sorted(items.clone(), disk(used), demand);
        for (item, why) in &sorted.goes {
            prop_assert!(item.needed.is_none() && !why.is_empty());
            prop_assert!(NOW.since(item.used_at) >= BUDGET.min_age);
            let whose = match &item.what {
                What::Leftover { kind: LeftoverKind::Data { workload: whose, .. }, .. } => Some(*whose),
                What::Leftover { kind: LeftoverKind::Volume { workload: whose }, .. } => Some(Some(*whose)),
                What::Leftover { kind: LeftoverKind::SharedVolume { workload: whose }, .. } => {
                    prop_assert_eq!(*whose, workload(7), "others may use it");
                    None
                }
                What::Leftover { .. } | What::Finished { .. } => None,
            };
            if let Some(whose) = whose {
                let is_deleted = whose == Some(workload(7));
                let is_asked = demand == Demand::All { data: true } && whose.is_some();
                prop_assert!(is_deleted || is_asked);
            }
        }
        let mut told: Vec<_> = sorted.goes.iter().chain(&sorted.stays).map(|(item, _)| item.clone()).collect();
        let mut all = items;
        let key = |item: &Item| (item.what.clone(), item.bytes, item.used_at, item.needed.clone());
        told.sort_by_key(key);
        all.sort_by_key(key);
        prop_assert_eq!(told, all);
    }

    #[test]
    fn for_room_no_more_images_go_than_it_takes(
        items in prop::collection::vec((0..30_u64, 60..200_u64), 0..30), used in 0..=100_u64,
    ) {
        let items: Vec<Item> = items.into_iter().map(|(bytes, minutes)| image("x", bytes, minutes)).collect();
        let sorted = sorted(items, disk(used), Demand::Budget);
        let goal = if used >= BUDGET.start { used - BUDGET.stop } else { 0 };
        if let Some((_, but_last)) = sorted.goes.split_last() {
            let freed: u64 = but_last.iter().map(|(item, _)| item.bytes).sum();
            prop_assert!(freed < goal, "the last one was too much");
        }
        let freed: u64 = sorted.goes.iter().map(|(item, _)| item.bytes).sum();
        prop_assert!(freed >= goal || sorted.stays.is_empty());
    }
}
