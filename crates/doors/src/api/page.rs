//! Pages of a list: at most so many entries after a cursor, and a `Link` header to the next page. The cursor
//! is the last entry's key; callers take it as opaque. Lists that are MIaaS's, too, come whole to who asks for no
//! page: its tools follow no links.

use std::fmt::Display;
use std::str::FromStr;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Uri, header};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::refuse::Failure;

const DEFAULT_LIMIT: usize = 500;
const MOST: usize = 1_000;

/// Which part of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct PageQuery {
    /// At most so many entries, 1 to 1000; 500 unless set.
    pub limit: Option<usize>,
    /// The cursor of the `Link` header.
    pub after: Option<String>,
}

/// One page and the way to the next.
#[derive(Debug)]
pub(super) struct Page<T> {
    pub entries: Vec<T>,
    next: Option<String>,
}

impl PageQuery {
    /// How many entries the page has at most.
    pub(super) fn checked_limit(&self) -> Result<usize, Failure> {
        match self.limit.unwrap_or(DEFAULT_LIMIT) {
            limit @ 1..=MOST => Ok(limit),
            limit => Err(Failure::bad(format!(
                "limit: {limit} is not within 1 and {MOST}"
            ))),
        }
    }

    /// Answers with the page that was asked for; without a word about pages with the whole list, which is read page by
    /// page, so that nobody is held up by its length.
    pub(super) async fn page_or_all<T>(
        self,
        read: impl Fn(&Self) -> Result<Page<T>, Failure>,
    ) -> Result<Page<T>, Failure> {
        if self.limit.is_some() || self.after.is_some() {
            return read(&self);
        }
        let mut query = self;
        let mut all = Vec::new();
        loop {
            let page = read(&query)?;
            all.extend(page.entries);
            let Some(next) = page.next else {
                return Ok(Page {
                    entries: all,
                    next: None,
                });
            };
            query.after = Some(next);
            tokio::task::yield_now().await;
        }
    }

    /// Cuts the page out of rows that ascend by key.
    pub(super) fn cut<K, R>(
        &self,
        rows: impl IntoIterator<Item = R>,
        key: impl Fn(&R) -> K,
    ) -> Result<Page<R>, Failure>
    where
        K: Ord + FromStr + Display,
    {
        let after = self.cursor::<K>()?;
        let rest = rows
            .into_iter()
            .skip_while(|row| after.as_ref().is_some_and(|it| key(row) <= *it));
        self.take(rest, |row| key(row).to_string())
    }

    /// The last key of the page before.
    pub(super) fn cursor<K: FromStr>(&self) -> Result<Option<K>, Failure> {
        let refused = |_| Failure::bad("after: this is no cursor of this list");
        let key = self
            .after
            .as_deref()
            .map(|text| text.parse().map_err(refused));
        key.transpose()
    }

    /// The page at the head of rows that begin behind the cursor.
    pub(super) fn take<R>(
        &self,
        rest: impl IntoIterator<Item = R>,
        key: impl Fn(&R) -> String,
    ) -> Result<Page<R>, Failure> {
        let limit = self.checked_limit()?;
        let rest = rest.into_iter();
        let mut entries: Vec<R> = rest.take(limit + 1).collect();
        let has_more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| has_more).map(key);
        Ok(Page { entries, next })
    }
}

impl<R> Page<R> {
    /// The same page of something else.
    pub(super) fn map<T>(self, show: impl FnMut(R) -> T) -> Page<T> {
        Page {
            entries: self.entries.into_iter().map(show).collect(),
            next: self.next,
        }
    }
}

impl<T: Serialize> Page<T> {
    /// The bare array, with the `Link` header to the next page of the same list.
    pub(super) fn answer(self, uri: &Uri) -> Response {
        let link = self.next.map(|next| link(uri, &next));
        let mut response = Json(self.entries).into_response();
        if let Some(Ok(link)) = link.map(HeaderValue::try_from) {
            response.headers_mut().insert(header::LINK, link);
        }
        response
    }
}

fn link(uri: &Uri, next: &str) -> String {
    let pairs = uri.query().unwrap_or_default().split('&');
    let kept = pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
    let query: String = kept.map(|pair| format!("{pair}&")).collect();
    format!("<{}?{query}after={next}>; rel=\"next\"", uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: usize, after: Option<&str>) -> Page<u64> {
        let query = PageQuery {
            limit: Some(limit),
            after: after.map(str::to_owned),
        };
        query.cut(1..=5_u64, |row| *row).unwrap()
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let first = page(2, None);
        assert_eq!(
            (first.entries, first.next.as_deref()),
            (vec![1, 2], Some("2"))
        );
        assert_eq!(page(2, Some("2")).entries, [3, 4]);
        let last = page(2, Some("4"));
        assert_eq!((last.entries, last.next), (vec![5], None));
        assert!(page(5, None).next.is_none());
    }

    #[test]
    fn the_link_keeps_the_rest_of_the_query() {
        let uri: Uri = "/api/v1/assignments?workload=web&after=1&limit=2"
            .parse()
            .unwrap();
        let expected = "</api/v1/assignments?workload=web&limit=2&after=9>; rel=\"next\"";
        assert_eq!(link(&uri, "9"), expected);
    }
}
