//! Requests about one agent, read as far as they are alike: path, headers and body, and whether the asker may.
//! A body counts only where the method has one.

use axum::RequestExt as _;
use axum::extract::{FromRequest, Path, Request};
use hostler_model::ReplicaId;
use http::{HeaderMap, Method};
use serde::de::DeserializeOwned;

use super::Spot;
use super::answer::No;
use super::body::Fields;
use super::who::{Agent, Asker};

/// A request that was read, with the agent that it is about.
pub(super) struct About {
    pub spot: Spot,
    pub agent: Agent,
    pub asker: Asker,
    pub headers: HeaderMap,
    pub body: Fields,
}

/// The agent's own client asks.
pub(super) struct Own(pub About);

/// Anybody asks; a token that is given all the same must be the client's.
pub(super) struct Anybody(pub About);

/// Anybody asks about one of the agent's replicas.
pub(super) struct OfReplica(pub About, pub ReplicaId);

impl FromRequest<Spot> for Own {
    type Rejection = No;

    async fn from_request(request: Request, spot: &Spot) -> Result<Self, No> {
        let (id, asker, headers, body): (String, _, _, _) = read(request).await?;
        let agent = spot.own(&headers, &body, &id)?;
        let spot = spot.clone();
        Ok(Self(About {
            spot,
            agent,
            asker,
            headers,
            body,
        }))
    }
}

impl FromRequest<Spot> for Anybody {
    type Rejection = No;

    async fn from_request(request: Request, spot: &Spot) -> Result<Self, No> {
        let (id, asker, headers, body): (String, _, _, _) = read(request).await?;
        anybody(spot, &id, (asker, headers, body)).map(Self)
    }
}

impl FromRequest<Spot> for OfReplica {
    type Rejection = No;

    async fn from_request(request: Request, spot: &Spot) -> Result<Self, No> {
        let ((id, replica), asker, headers, body): ((String, String), _, _, _) =
            read(request).await?;
        let about = anybody(spot, &id, (asker, headers, body))?;
        let replica = replica.parse().ok();
        let replica = replica.filter(|&id| about.agent.rental.replica(id).is_some());
        let replica = replica.ok_or_else(|| No::not_found("Replica not found"))?;
        Ok(Self(about, replica))
    }
}

fn anybody(
    spot: &Spot,
    id: &str,
    (asker, headers, body): (Asker, HeaderMap, Fields),
) -> Result<About, No> {
    let agent = spot.agent_for(&headers, id)?;
    let spot = spot.clone();
    Ok(About {
        spot,
        agent,
        asker,
        headers,
        body,
    })
}

async fn read<P>(mut request: Request) -> Result<(P, Asker, HeaderMap, Fields), No>
where
    P: DeserializeOwned + Send + 'static,
{
    let path = request.extract_parts::<Path<P>>().await;
    let Path(named) = path.map_err(|error| No::bad(error.body_text()))?;
    let Ok(asker) = request.extract_parts::<Asker>().await;
    let headers = request.headers().clone();
    let body = if request.method() == Method::GET {
        Fields::default()
    } else {
        Fields::from_request(request, &()).await?
    };
    Ok((named, asker, headers, body))
}
