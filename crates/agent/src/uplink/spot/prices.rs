//! Prices of the spot contract: collected where a source of prices is configured, and reported to the server.
//! Whatever fails is told, and the next round comes all the same.

use std::fmt;
use std::path::PathBuf;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::record::naive;
use super::{Instance, Member, ticks};

/// Where prices come from.
#[async_trait]
pub trait Prices: fmt::Debug + Send + Sync + 'static {
    /// The prices of now.
    ///
    /// # Errors
    /// A sentence for the log.
    async fn collect(&self) -> Result<PriceTable, String>;
}

/// Prices at one moment, in dollars an hour.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PriceTable {
    pub on_demand_price: f64,
    #[serde(default)]
    pub spot_pools: Vec<Pool>,
}

/// One pool and its price.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    pub pool_id: String,
    pub instance_type: String,
    pub az: String,
    pub price: f64,
}

/// A JSON file that something else keeps up to date: `on_demand_price`, and `spot_pools` with `pool_id`,
/// `instance_type`, `az` and `price` each.
#[derive(Debug, Clone)]
pub struct FilePrices(pub PathBuf);

#[async_trait]
impl Prices for FilePrices {
    async fn collect(&self) -> Result<PriceTable, String> {
        let told = |error: &dyn fmt::Display| format!("{}: {error}", self.0.display());
        let text = tokio::fs::read(&self.0)
            .await
            .map_err(|error| told(&error))?;
        serde_json::from_slice(&text).map_err(|error| told(&error))
    }
}

impl Member<'_> {
    pub(super) async fn report_prices(&self) {
        let uplink = self.uplink;
        let Some(prices) = &uplink.spot.prices else {
            return;
        };
        let mut ticks = ticks(uplink.spot.timers.pricing);
        loop {
            ticks.tick().await;
            let table = match prices.collect().await {
                Ok(table) => table,
                Err(reason) => {
                    uplink
                        .pen
                        .error(format!("Pricing collection failed: {reason}"));
                    continue;
                }
            };
            let now = uplink.now();
            let report = report(
                &uplink.spot.instance,
                &table,
                &format!("{}+00:00", naive(now)),
            );
            match self.tell("pricing-report", &report).await {
                Ok(()) => {
                    uplink.pen.debug("Pricing report sent");
                    uplink.note(uplink.record.priced(now).await);
                }
                Err(error) => uplink.pen.error(format!("Pricing report failed: {error}")),
            }
        }
    }
}

/// The report's body. The agent's own price is that of its own pool.
fn report(instance: &Instance, table: &PriceTable, collected_at: &str) -> Value {
    let pool = instance.pool();
    let own = |candidate: &&Pool| Some(&candidate.pool_id) == pool.as_ref();
    let current = table.spot_pools.iter().find(own).map(|pool| pool.price);
    let cheapest = table
        .spot_pools
        .iter()
        .min_by(|a, b| a.price.total_cmp(&b.price))
        .map(|pool| json!({"pool_id": pool.pool_id, "price": pool.price}));
    json!({
        "instance": {
            "instance_id": instance.id,
            "instance_type": instance.kind,
            "region": instance.region,
            "az": instance.az,
            "mode": instance.mode,
            "pool_id": pool,
        },
        "pricing": {
            "on_demand_price": table.on_demand_price,
            "current_spot_price": current,
            "cheapest_pool": cheapest,
            "spot_pools": table.spot_pools,
            "collected_at": collected_at,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(az: &str, price: f64) -> Pool {
        Pool {
            pool_id: format!("t3.medium.{az}"),
            instance_type: "t3.medium".to_owned(),
            az: az.to_owned(),
            price,
        }
    }

    #[test]
    fn a_report_names_the_own_price_and_the_cheapest_pool() {
        let mut instance = Instance {
            kind: "t3.medium".to_owned(),
            az: "a".to_owned(),
            mode: "spot".to_owned(),
            ..Instance::default()
        };
        let table = PriceTable {
            on_demand_price: 0.0416,
            spot_pools: vec![pool("a", 0.02), pool("b", 0.01)],
        };
        let told = report(&instance, &table, "2025-01-01T00:00:00.000Z");
        assert_eq!(told["instance"]["pool_id"], "t3.medium.a");
        assert_eq!(told["pricing"]["current_spot_price"], 0.02);
        assert_eq!(
            told["pricing"]["cheapest_pool"],
            json!({"pool_id": "t3.medium.b", "price": 0.01})
        );
        instance.mode = "ondemand".to_owned();
        let told = report(&instance, &PriceTable::default(), "");
        assert_eq!(told["instance"]["pool_id"], Value::Null);
        assert_eq!(told["pricing"]["current_spot_price"], Value::Null);
        assert_eq!(told["pricing"]["cheapest_pool"], Value::Null);
    }
}
