//! Every engine passes the one contract suite.

use hostler_store::contract;

use crate::engines::{Memory, Sqlite};

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    contract::run(&Memory::default()).await;
}

#[tokio::test]
async fn the_store_on_disk_keeps_the_contract() {
    contract::run(&Sqlite::new()).await;
}
