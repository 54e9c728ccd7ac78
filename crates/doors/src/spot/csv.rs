//! Tables to take away, as comma-separated text.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;

use super::answer::No;
use super::charts::{month, months, pool_of, switches};
use super::{Spot, admin, show};

/// A field: quoted where it must be. A text that a spreadsheet would take for a formula is marked as text.
fn field(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '@', '\t', '\r'])
        || text.starts_with('-') && text.parse::<f64>().is_err();
    let text = if is_formula {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

fn table(name: &str, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Response {
    let line = |fields: Vec<String>| fields.join(",") + "\r\n";
    let head = line(head.iter().map(|text| field(text)).collect());
    let rows = rows
        .into_iter()
        .map(|row| line(row.iter().map(|text| field(text)).collect()));
    let text: String = std::iter::once(head).chain(rows).collect();
    let disposition = format!("attachment; filename=\"{name}\"");
    (
        [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
            (header::CONTENT_DISPOSITION, disposition),
        ],
        text,
    )
        .into_response()
}

pub(super) async fn savings(
    State(spot): State<Spot>,
    Path(client): Path<String>,
) -> Result<Response, No> {
    let account = spot.client_of(&client)?;
    let head = [
        "Year",
        "Month",
        "Month Name",
        "On-Demand Cost ($)",
        "Actual Cost ($)",
        "Savings ($)",
    ];
    let rows = months(&account).into_iter().map(|(key, book)| {
        let (year, number, name) = month(key);
        vec![
            year.to_owned(),
            number.to_string(),
            name.to_owned(),
            book.baseline.as_dollars().to_string(),
            book.paid.as_dollars().to_string(),
            book.saved.as_dollars().to_string(),
        ]
    });
    Ok(table("savings.csv", &head, rows))
}

pub(super) async fn switch_history(
    State(spot): State<Spot>,
    Path(client): Path<String>,
) -> Result<Response, No> {
    let account = spot.client_of(&client)?;
    let head = [
        "Timestamp",
        "Old Instance",
        "New Instance",
        "From Mode",
        "To Mode",
        "From Pool",
        "To Pool",
        "Trigger",
        "Price ($/h)",
        "Savings Impact ($/h)",
    ];
    let switches = switches(&spot, account.id);
    let rows = switches.iter().map(|switch| {
        vec![
            show::moment(switch.at),
            switch.from.machine.clone(),
            switch.to.machine.clone(),
            show::market(switch.from.market).to_owned(),
            show::market(switch.to.market).to_owned(),
            pool_of(&switch.from).to_owned(),
            pool_of(&switch.to).to_owned(),
            switch.trigger.clone(),
            switch.prices.after().as_dollars().to_string(),
            switch.prices.impact().as_dollars().to_string(),
        ]
    });
    Ok(table("switch-history.csv", &head, rows))
}

pub(super) async fn global(State(spot): State<Spot>) -> Response {
    let figures = admin::figures(&spot);
    let rows = figures.as_object().into_iter().flatten();
    let rows = rows.map(|(name, value)| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        vec![name.clone(), value]
    });
    table("global-stats.csv", &["Figure", "Value"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_must_be_and_never_a_formula() {
        for (text, written) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=1+1", "'=1+1"),
            ("-0.5", "-0.5"),
            ("-x", "'-x"),
        ] {
            assert_eq!(field(text), written);
        }
    }
}
