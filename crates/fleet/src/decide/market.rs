//! The market: what agents saw of prices.

use std::sync::Arc;

use hostler_model::{Code, Pool, Quote, Refusal};

use super::Draft;
use crate::{Change, PoolPrice, PriceReport, Reply};

/// Pools that are taken in before retention comes by; it leaves far fewer.
const MOST_POOLS: usize = 2_048;
/// Pools of one report.
const MOST_PER_REPORT: usize = 500;
/// The same price again is written down no more often.
const SEEN_EVERY_MS: u64 = 60_000;

impl Draft<'_> {
    pub(super) fn record_prices(&mut self, report: &PriceReport) -> Result<Reply, Refusal> {
        self.present_rental(report.node)?;
        // Before anything is done with them: everybody waits for this decision.
        if report.pools.len() > MOST_PER_REPORT {
            return Err(too_many());
        }
        let mut news: Vec<&PoolPrice> = report.pools.iter().collect();
        news.sort_by(|a, b| a.pool.cmp(&b.pool));
        news.dedup_by(|a, b| a.pool == b.pool);
        let is_new = |price: &&&PoolPrice| self.state.pool(&price.pool).is_none();
        let known = self.state.pools().len() + news.iter().filter(is_new).count();
        if known > MOST_POOLS {
            return Err(too_many());
        }
        for price in news {
            self.record_price(report, price);
        }
        Ok(Reply::Done)
    }

    fn record_price(&mut self, report: &PriceReport, price: &PoolPrice) {
        let old = self.state.pool(&price.pool);
        let told = report.on_demand.as_ref();
        let told = told.filter(|(of, _)| *of == price.instance_type);
        let on_demand = told
            .map(|(_, price)| *price)
            .or_else(|| old.and_then(|old| old.on_demand));
        let pool = Pool {
            id: price.pool.clone(),
            instance_type: price.instance_type.clone(),
            region: report.region.clone(),
            zone: price.zone.clone(),
            spot: price.spot.or_else(|| old.and_then(|old| old.spot)),
            on_demand,
            seen_at: self.now,
        };
        let is_same = old.is_some_and(|old| {
            let again = Pool {
                seen_at: old.seen_at,
                ..pool.clone()
            };
            again == **old && self.now.since(old.seen_at).as_millis() < u128::from(SEEN_EVERY_MS)
        });
        if !is_same {
            self.changes.push(Change::PutPool(Arc::new(pool)));
        }
        let Some(spot) = price.spot else { return };
        let quote = Quote {
            pool: price.pool.clone(),
            bucket: Quote::bucket_of(self.now),
            spot,
            on_demand,
            source: report.source,
        };
        let kept = self.state.quote_at(&quote.pool, quote.slot());
        let is_better =
            kept.is_none_or(|kept| kept.bucket != quote.bucket || kept.source < quote.source);
        if is_better {
            self.changes.push(Change::PutQuote(Arc::new(quote)));
        }
    }
}

fn too_many() -> Refusal {
    let sentence = format!("a report has at most {MOST_PER_REPORT} pools");
    let advice = "report the pools of your own kind of machine only";
    Refusal::new(Code::BodyTooLarge, sentence, advice)
}
