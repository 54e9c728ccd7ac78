//! What agents report: prices, switches, what they cleaned up, and which machines have come and gone.

use axum::Json;
use hostler_control::fleet::{
    Cleanup, EndCause, MachineReport, PoolPrice, PriceReport, RentedVerb, Reply, SwitchReport,
    Verb, end_due,
};
use hostler_model::{
    Code, Machine, Market, Money, PoolId, QuoteSource, Rental, ReplicaKind, Role, SwitchEnd,
    SwitchPrices, SwitchStamps,
};
use serde_json::json;

use super::about::{About, Own};
use super::agents::unexpected;
use super::answer::{Answer, No};
use super::body::Fields;
use super::who::Agent;

/// Prices that the agent saw.
pub(super) async fn prices(Own(about): Own) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let report = price_report(&agent, &body)?;
    let verb = Verb::Quote(Box::new(report));
    spot.control.submit(agent.actor(), verb).await?;
    Ok(Json(json!({"success": true})))
}

fn price_report(agent: &Agent, body: &Fields) -> Result<PriceReport, No> {
    let (machine, pricing) = (body.child("instance"), body.child("pricing"));
    let present = super::show::machine(&agent.rental);
    let known = |told: Option<String>, of: fn(&Machine) -> &String| {
        told.or_else(|| present.map(|it| of(it).clone()))
            .unwrap_or_default()
    };
    let kind = known(machine.word("instance_type")?, |it| &it.instance_type);
    let region = known(machine.word("region")?, |it| &it.region);
    let zone = known(machine.word("az")?, |it| &it.zone);
    let mut pools = Vec::new();
    for told in pricing.children("spot_pools") {
        pools.extend(pool_price(&told, &kind)?);
    }
    let own = machine
        .pool("pool_id")?
        .or_else(|| PoolId::of(&kind, &zone));
    if let Some(own) = own.filter(|own| pools.iter().all(|it: &PoolPrice| it.pool != *own)) {
        pools.push(PoolPrice {
            pool: own,
            instance_type: kind.clone(),
            zone,
            spot: positive(pricing.money("current_spot_price")),
        });
    }
    let cheapest = pricing.child("cheapest_pool");
    if let Some(price) = pool_price(&cheapest, &kind)?
        && pools.iter().all(|it| it.pool != price.pool)
    {
        pools.push(price);
    }
    let source = match machine.word("instance_id")? {
        Some(id) => source(&agent.rental, &id),
        None => QuoteSource::Primary,
    };
    Ok(PriceReport {
        node: agent.id(),
        region,
        on_demand: positive(pricing.money("on_demand_price")).map(|price| (kind, price)),
        pools,
        source,
    })
}

/// What a price is worth that is told from that machine.
fn source(rental: &Rental, machine: &str) -> QuoteSource {
    let role = rental.machine(machine).map(|machine| machine.role);
    if role != Some(Role::Replica) {
        return QuoteSource::Primary;
    }
    let mut replicas = rental.standing_by();
    let replica = replicas.find(|it| it.machine.as_deref() == Some(machine));
    match replica.map(|replica| replica.kind) {
        Some(ReplicaKind::AutomaticRebalance | ReplicaKind::AutomaticTermination) => {
            QuoteSource::ReplicaAutomatic
        }
        Some(ReplicaKind::Manual) | None => QuoteSource::ReplicaManual,
    }
}

/// One pool with its price. A pool's name ends in its zone, so that either may be left out.
fn pool_price(told: &Fields, kind: &str) -> Result<Option<PoolPrice>, No> {
    let (Some(pool), Some(spot)) = (told.pool("pool_id")?, positive(told.money("price"))) else {
        return Ok(None);
    };
    let kind = told
        .word("instance_type")?
        .unwrap_or_else(|| kind.to_owned());
    let zone = pool.as_str().strip_prefix(&kind);
    let zone = zone
        .and_then(|rest| rest.strip_prefix('.'))
        .unwrap_or_default();
    let zone = told.word("az")?.unwrap_or_else(|| zone.to_owned());
    Ok(Some(PoolPrice {
        pool,
        instance_type: kind,
        zone,
        spot: Some(spot),
    }))
}

fn positive(price: Option<Money>) -> Option<Money> {
    price.filter(|price| *price > Money::ZERO)
}

/// A move that the agent has made.
pub(super) async fn switch(Own(about): Own) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let report = switch_report(&body)?;
    let verb = RentedVerb::Switched(Box::new(report));
    spot.rented(agent.actor(), &agent, verb).await?;
    Ok(Json(json!({"success": true})))
}

/// Both spellings of the prices and of the moments are read.
fn switch_report(body: &Fields) -> Result<SwitchReport, No> {
    let to = switch_end(&body.child("new_instance"))?;
    if to.machine.is_empty() {
        return Err(No::bad("Missing new_instance.instance_id"));
    }
    let prices = [body.child("pricing"), body.child("prices")];
    let price = |key| prices.iter().find_map(|prices| positive(prices.money(key)));
    let timing = body.child("timing");
    let stamp = |keys: [&str; 2]| keys.iter().find_map(|key| timing.moment(key));
    Ok(SwitchReport {
        from: switch_end(&body.child("old_instance"))?,
        to,
        trigger: body
            .word("trigger")?
            .unwrap_or_else(|| "unknown".to_owned()),
        command: body.word("command_id")?.and_then(|id| id.parse().ok()),
        prices: SwitchPrices {
            on_demand: price("on_demand"),
            old_spot: price("old_spot"),
            new_spot: price("new_spot"),
        },
        stamps: SwitchStamps {
            begun: stamp(["initiated_at", "switch_initiated_at"]),
            image_made: stamp(["ami_created_at", "ami_created_at"]),
            launched: stamp(["instance_launched_at", "new_instance_launched_at"]),
            ready: stamp(["instance_ready_at", "new_instance_ready_at"]),
            old_ended: stamp(["old_terminated_at", "old_instance_terminated_at"]),
        },
    })
}

fn switch_end(end: &Fields) -> Result<SwitchEnd, No> {
    let word = |key| Ok::<_, No>(end.word(key)?.unwrap_or_default());
    let market = end.market("mode").unwrap_or_default();
    let (kind, zone) = (word("instance_type")?, word("az")?);
    let pool = match market {
        Market::OnDemand => None,
        Market::Spot => end.pool("pool_id")?.or_else(|| PoolId::of(&kind, &zone)),
        Market::Unknown => end.pool("pool_id")?,
    };
    Ok(SwitchEnd {
        machine: word("instance_id")?,
        instance_type: kind,
        region: word("region")?,
        zone,
        market,
        pool,
        image: word("ami_id")?,
    })
}

/// What the agent has deleted of old images and snapshots.
pub(super) async fn cleanup(Own(about): Own) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let (snapshots, images) = (body.child("snapshots"), body.child("amis"));
    let cleanup = Cleanup {
        snapshots: snapshots.count("deleted") + images.count("deleted_snapshots"),
        images: images.count("deleted_amis"),
        failed: snapshots.count("failed") + images.count("failed"),
    };
    let verb = RentedVerb::CleanedUp(cleanup);
    spot.rented(agent.actor(), &agent, verb).await?;
    Ok(Json(json!({
        "success": true,
        "message": "Cleanup report recorded",
        "deleted_snapshots": cleanup.snapshots,
        "deleted_amis": cleanup.images,
        "failed_count": cleanup.failed,
    })))
}

/// The agent has ended a machine, or could not. Only machines of its own count.
pub(super) async fn machine_ended(Own(about): Own) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let machine = body.needed("instance_id")?;
    let has_ended = body.flag("success").unwrap_or(false);
    let error = (!has_ended).then(|| {
        body.prose("error")
            .unwrap_or_else(|| "no reason".to_owned())
    });
    let verb = RentedVerb::Ended { machine, error };
    match spot.rented(agent.actor(), &agent, verb).await {
        Ok(_) => {}
        Err(refusal) if refusal.code == Code::NodeNotFound => {
            return Err(No::bad("the agent has no such instance"));
        }
        Err(refusal) => return Err(refusal.into()),
    }
    Ok(Json(
        json!({"success": true, "message": "Termination report recorded"}),
    ))
}

/// A machine that the agent has launched: the one that it is on from now on, or one that stands by.
pub(super) async fn register_instance(Own(about): Own) -> Answer {
    let About {
        spot, agent, body, ..
    } = about;
    let machine = body.needed("instance_id")?;
    let market = super::body::market(&body.needed("mode")?);
    let market = market.ok_or_else(|| No::bad("mode is neither spot nor ondemand"))?;
    let is_primary = body.flag("is_primary").unwrap_or(true);
    let report = MachineReport {
        id: Some(machine.clone()),
        instance_type: Some(body.needed("instance_type")?),
        region: Some(body.needed("region")?),
        zone: Some(body.needed("az")?),
        market: Some(market),
        image: body.word("ami_id")?,
        pool: body.pool("pool_id")?,
        baseline: positive(body.money("ondemand_price")),
    };
    let verb = if is_primary {
        RentedVerb::Moved(report)
    } else {
        RentedVerb::Beside(report)
    };
    spot.rented(agent.actor(), &agent, verb).await?;
    Ok(Json(json!({
        "success": true,
        "message": "Instance registered",
        "instance_id": machine,
        "is_primary": is_primary,
    })))
}

/// Machines that the agent is to end now. Handing them out is written down.
pub(super) async fn to_terminate(Own(about): Own) -> Answer {
    let About { spot, agent, .. } = about;
    let (rental, now) = (&agent.rental, spot.now());
    let cause = |machine: &Machine| end_due(rental, machine, now);
    let mut ordered = Vec::new();
    if rental.machines.iter().any(|it| cause(it).is_some()) {
        let verb = RentedVerb::OrderEnds;
        match spot.rented(agent.actor(), &agent, verb).await? {
            Reply::Machines(machines) => ordered = machines,
            other => return Err(unexpected(&other)),
        }
    }
    let items = ordered.iter().filter_map(|id| rental.machine(id));
    let items = items.map(|machine| {
        let waited = now.since(machine.role_since).as_secs();
        let mut item = json!({
            "instance_id": machine.id,
            "instance_type": machine.instance_type,
            "az": machine.zone,
        });
        let (reason, key) = match cause(machine) {
            Some(EndCause::StoodBy) => ("replica_terminated", "seconds_since_marked"),
            Some(EndCause::Left) | None => ("zombie_timeout", "seconds_waiting"),
        };
        item["reason"] = reason.into();
        item[key] = waited.into();
        item
    });
    Ok(Json(json!({
        "instances": items.collect::<Vec<_>>(),
        "auto_terminate_enabled": rental.policy.auto_terminate,
        "terminate_wait_seconds": rental.policy.terminate_wait_seconds,
    })))
}
